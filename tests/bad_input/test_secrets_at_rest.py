"""Secrets are in files that only their owner can read, and nowhere else: no log, no process argument, no state."""

import sys
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path

import pytest

from initiator_shim.__main__ import parse_arguments
from initiator_shim.initiator_chap import ChapCredentials
from initiator_shim.pair_arguments import argument_parser
from initiator_shim.secret_files import chap_credentials
from initiator_shim.session_errors import LoginRefused, TargetNotTrusted
from storage_model.errors import UserError
from storage_model.secret import Secret
from target.__main__ import configuration
from target.secret_files import load_access_rules
from tests.bad_input.chap_array import CHAP, chap_array, secret_file
from tests.chap_login import SECRET, TARGET_SECRET, TARGET_USER, USER
from tests.integration.client_tools import run_tool
from tests.integration.shims import shim

ARRAY = ("target", "--portal", "127.0.0.1:0", "--volume", "1MiB")
SHIM = ("initiator_shim", "--listen", "127.0.0.1:0", "--array", "127.0.0.1:1")
PAIRCTL = ("initiator_shim.pairctl", "-a", "iscsi://127.0.0.1:1", "status")
FORMS = [form for secret in (SECRET, TARGET_SECRET) for form in (secret, secret.hex().encode(), b64encode(secret))]


async def fails(words: Sequence[str]) -> str:
    """The one line that a command, in a process of its own, ends with, at exit status 2."""
    output = await run_tool(sys.executable, "-m", *words, status=2)
    assert all(form not in output.encode() for form in FORMS)
    (line,) = output.splitlines()
    return line


def read_secrets(program: str, *arguments: str) -> None:
    """The part of a command that reads them."""
    if program == "target":
        load_access_rules(configuration(list(arguments))[0].access)
    elif program == "initiator_shim":
        parse_arguments(list(arguments))
    else:
        chap_credentials(argument_parser().parse_args(arguments))


def refusal(words: Sequence[str]) -> str:
    """The same line without a process."""
    with pytest.raises(UserError) as raised:
        read_secrets(*words)
    assert all(form not in str(raised.value).encode() for form in FORMS) and "\n" not in str(raised.value)
    return str(raised.value)


def chap_words(command: Sequence[str], secret: str) -> list[str]:
    """``command`` with CHAP whose secret is said by ``secret``: ``secret-file=…`` or ``secret-env=…``."""
    key, _, value = secret.partition("=")
    if command is ARRAY:
        return [*command, "--access", f"chap-user={USER},chap-{secret}"]
    return [*command, "--chap-user", USER, f"--chap-{key}", value]


COMMANDS = pytest.mark.parametrize("command", [ARRAY, SHIM, PAIRCTL], ids=["pairvol-array", "pairvol-shim", "pairctl"])


@COMMANDS
async def test_a_file_that_others_can_read_is_refused(command: Sequence[str], tmp_path: Path) -> None:
    file = secret_file(tmp_path / "the secret", SECRET, 0o644)
    line = await fails(chap_words(command, f"secret-file={file}"))
    assert line.endswith(f"{file} is open to others than its owner: chmod 600 '{file}'")


@COMMANDS
def test_a_secret_that_is_too_short_is_refused(command: Sequence[str], tmp_path: Path) -> None:
    file = secret_file(tmp_path / "secret", SECRET[:11])
    assert "12 to 255 bytes (at least 96 bits), this one has 11" in refusal(chap_words(command, f"secret-file={file}"))


@COMMANDS
def test_a_file_or_a_variable_that_is_not_there(command: Sequence[str], tmp_path: Path) -> None:
    line = refusal(chap_words(command, f"secret-file={tmp_path / 'nothing'}"))
    assert line.endswith("No such file or directory")
    line = refusal(chap_words(command, "secret-env=PAIRVOL_NO_SUCH_SECRET"))
    assert line.endswith("the environment has no variable PAIRVOL_NO_SUCH_SECRET")


@COMMANDS
def test_one_secret_for_both_directions_is_refused(command: Sequence[str], tmp_path: Path) -> None:
    own, other = secret_file(tmp_path / "own", SECRET), secret_file(tmp_path / "other", SECRET)
    words = chap_words(command, f"secret-file={own}")
    if command is ARRAY:
        words[-1] += f",mutual-user={TARGET_USER},mutual-secret-file={other}"
    else:
        words += ["--mutual-user", TARGET_USER, "--mutual-secret-file", str(other)]
    assert refusal(words).endswith(("they must differ", "must not be the initiator's own"))


def test_a_secret_among_the_words_is_not_taken_and_not_repeated() -> None:
    line = refusal([*ARRAY, "--access", f"chap-user={USER},chap-secret={SECRET.decode()}"])
    assert "'chap-secret' is not one of" in line


def test_a_secret_in_the_configuration_file_is_not_taken_and_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "array.toml"
    file.write_text(
        f'[array]\n[[volumes]]\nname="a"\nsize="1MiB"\n[[access]]\nchap_user="{USER}"\nchap_secret="{SECRET.decode()}"\n'
    )
    line = refusal(["target", "--config", str(file)])
    assert "chap_secret" in line


def traces(directory: Path, *pids: int) -> dict[str, bytes]:
    """All that the processes have written and what others can see of them, but for the secret files themselves."""
    found = {
        str(path): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and not path.name.endswith(".secret")
    }
    for pid in pids:
        found[f"arguments of {pid}"] = Path(f"/proc/{pid}/cmdline").read_bytes()
    return found


async def test_no_trace_of_a_secret(tmp_path: Path) -> None:
    """Good logins and bad ones, at the array and through a shim, with everything logged that can be."""
    words = ("--log-level", "debug", "--state-dir", str(tmp_path / "state"))
    options = [
        *("--chap-user", USER, "--chap-secret-file", str(tmp_path / "host.secret")),
        *("--mutual-user", TARGET_USER, "--mutual-secret-file", str(tmp_path / "array.secret")),
    ]
    async with chap_array(tmp_path, CHAP, words=words) as array:
        port = array.process.address[1]
        async with shim(tmp_path, port, *options) as front:
            await array.log_in_and_out()
            with pytest.raises(LoginRefused):
                await array.log_in(chap=ChapCredentials(USER, Secret(b"some other secret")))
            with pytest.raises(LoginRefused):  # the secret where the name should be, as happens
                await array.log_in(chap=ChapCredentials(SECRET.decode(), Secret(b"some other secret")))
            with pytest.raises(TargetNotTrusted):
                await array.log_in(
                    chap=ChapCredentials(USER, Secret(SECRET), TARGET_USER, Secret(b"some other secret"))
                )
            found = traces(tmp_path, array.process.process.pid, front.process.pid)
            assert {"array.log", "shim.log", "metadata.sqlite"} <= {Path(name).name for name in found}
            assert "logged in" in array.process.log and "0201h" in array.process.log
            for name, content in found.items():
                for form in FORMS:
                    assert form not in content, name
