"""``pairvol-array`` as its user meets it: what it prints, how it ends, and one clear line for every mistake."""

import asyncio
import ctypes
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from initiator_shim.initiator_transport import IscsiSession
from initiator_shim.session_errors import SessionError
from storage_model.spec.iscsi_pdu import ScsiCommandPdu, lun_to_bytes
from target.__main__ import main
from tests.eventually import eventually
from tests.integration.array_process import STOP_SECONDS, ArrayProcess, running_array
from tests.integration.pair_of_arrays import free_port, write_cdb
from tests.integration.raw_initiator import RawInitiator

ANY = ("--portal", "127.0.0.1:0")
READ_CAPACITY_10 = b"\x25" + bytes(9)

_PR_CAPBSET_DROP = 24
_CAP_DAC_OVERRIDE, _CAP_NET_BIND_SERVICE = 1, 10


def _without_privileges() -> None:
    """In the child, before exec: root keeps its name, but file modes and low port numbers count for it, too."""
    for capability in (_CAP_DAC_OVERRIDE, _CAP_NET_BIND_SERVICE):
        ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, capability)


def run(*words: str, module: str = "target") -> "subprocess.CompletedProcess[str]":
    """A command that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        capture_output=True,
        text=True,
        timeout=20,
        preexec_fn=_without_privileges,
    )


def assert_user_error(words: Sequence[str], *parts: str) -> None:
    """One line on standard error that has all ``parts``, exit status 2, nothing on standard output."""
    result = run(*words)
    assert_refusal(result.returncode, result.stdout, result.stderr, parts)


def assert_refusal(status: int, output: str, errors: str, parts: Sequence[str]) -> None:
    lines = errors.splitlines()
    assert len(lines) == 1, errors
    assert lines[0].startswith("pairvol-array: ")
    for part in parts:
        assert part in lines[0]
    assert (status, output) == (2, "")


Refused = Callable[[Sequence[str], Sequence[str]], None]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Like ``assert_user_error``, without the half second that a new process takes; what stays open is a warning."""

    def give_up(*_: object) -> None:
        raise AssertionError("it is not refused, it serves")

    def check(words: Sequence[str], parts: Sequence[str]) -> None:
        before = signal.signal(signal.SIGALRM, give_up)
        signal.setitimer(signal.ITIMER_REAL, 5)
        try:
            status = main(list(words))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert_refusal(status, *capsys.readouterr(), parts)

    return check


async def capacity(session: IscsiSession, lun: int) -> tuple[int, int]:
    """Blocks and their length, by READ CAPACITY(10)."""
    while (outcome := await session.execute(lun, READ_CAPACITY_10, b"", 8)).status:
        pass  # unit attentions
    return int.from_bytes(outcome.data_in[:4]) + 1, int.from_bytes(outcome.data_in[4:8])


# ---------------------------------------------------------------------------------------------------- what it prints


async def test_zero_configuration_prints_a_url_per_lun_and_ready(tmp_path: Path) -> None:
    async with running_array(tmp_path, *ANY, "--volume", "64MiB", "--volume", "1GiB,block=4096") as array:
        host, port = array.address
        name = "iqn.2026-11.org.pairvol:array"
        assert array.urls == [f"iscsi://{host}:{port}/{name}/0", f"iscsi://{host}:{port}/{name}/1"]
        session = await array.connect()
        assert await capacity(session, 0) == (64 << 11, 512)
        assert await capacity(session, 1) == (1 << 18, 4096)
        await session.logout()


async def test_each_portal_serves_each_volume(tmp_path: Path) -> None:
    name = "iqn.2026-11.org.example:disks"
    words = (*ANY, *ANY, "--volume", "8MiB", "--volume", "16MiB", "--iqn", name)
    async with running_array(tmp_path, *words) as array:
        addresses = {url.split("/")[2] for url in array.urls}
        assert len(addresses) == 2 and len(array.urls) == 4
        assert all(f"/{name}/" in url for url in array.urls)
        for address in addresses:
            session = await IscsiSession.connect("127.0.0.1", int(address.rpartition(":")[2]))
            assert [await capacity(session, lun) for lun in (0, 1)] == [(16384, 512), (32768, 512)]
            await session.logout()


async def test_volume_in_a_sparse_file_keeps_its_data(tmp_path: Path) -> None:
    file = tmp_path / "state" / "disk.img"
    words = (*ANY, "--state-dir", str(tmp_path / "state"), "--volume", "64MiB,file=disk.img,block=4096")
    async with running_array(tmp_path, *words) as array:
        session = await array.connect()
        assert (await session.execute(0, write_cdb(3, 1), b"kept" * 1024)).status == 0
        await session.logout()
    assert file.stat().st_size == 64 << 20 and file.stat().st_blocks * 512 < 1 << 20
    assert file.read_bytes()[3 * 4096 : 4 * 4096] == b"kept" * 1024
    async with running_array(tmp_path, *words) as array:
        session = await array.connect()
        outcome = await session.execute(0, b"\x28\0\0\0\0\x03\0\0\x01\0", b"", 4096)
        assert outcome.data_in == b"kept" * 1024
        await session.logout()


@pytest.mark.parametrize(
    ("module", "flags"),
    [
        ("target", "--config --portal --volume --iqn --state-dir --copy-listen --copy-peer --broker --log-level"),
        ("initiator_shim", "--listen --array --deadline --broker --name --quiet"),
        (
            "initiator_shim.pairctl",
            "--array --timeout-seconds status create split resync delete wait display takeover volchk evtwait watch",
        ),
    ],
)
def test_help_mentions_every_flag(module: str, flags: str) -> None:
    result = run("--help", module=module)
    assert (result.returncode, result.stderr) == (0, "")
    for flag in flags.split():
        assert flag in result.stdout


# ---------------------------------------------------------------------------------------------------- how it ends


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
async def test_a_signal_ends_it(number: signal.Signals, tmp_path: Path) -> None:
    async with running_array(tmp_path) as array:
        assert await array.end_by(number) < STOP_SECONDS


async def _keep_writing(session: IscsiSession, lba: int, done: list[int]) -> None:
    with suppress(SessionError):
        while True:
            outcome = await session.execute(0, write_cdb(lba, 64), bytes(64 * 512))
            assert outcome.status == 0
            done.append(lba)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
async def test_a_signal_ends_it_with_sessions_open_and_writes_under_way(number: signal.Signals, tmp_path: Path) -> None:
    words = (*ANY, "--volume", f"64MiB,file={tmp_path / 'disk.img'}")
    async with running_array(tmp_path, *words) as array:
        sessions = [await array.connect(isid=bytes([0x80, 0, 0, 0, 0, index])) for index in range(4)]
        done: list[int] = []
        writers = [
            asyncio.create_task(_keep_writing(session, 64 * (4 * index + part), done))
            for index, session in enumerate(sessions)
            for part in range(4)
        ]
        await eventually(lambda: len(done) > 100, what="writes under way")
        assert await array.end_by(number) < STOP_SECONDS
        await asyncio.wait_for(asyncio.gather(*writers), 5)


async def test_a_signal_ends_it_with_an_initiator_that_takes_no_answers(tmp_path: Path) -> None:
    async with running_array(tmp_path) as array, RawInitiator.connection(array.address) as initiator:
        await initiator.log_in(array.iqn)
        read = ScsiCommandPdu(read=True, lun=lun_to_bytes(0), cdb=b"\x28\0\0\0\0\0\0\x20\0\0" + bytes(6))
        for _ in range(32):  # of 4 MiB each: more than the sockets can hold
            initiator.command(read, expected_data_transfer_length=4 << 20)
        await initiator.receive()
        initiator.pause()
        assert await array.end_by(signal.SIGTERM) < STOP_SECONDS


# ------------------------------------------------------------------------------------- mistakes: the command line


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("", ["--volume"]),
        ("--volume 0", ["--volume 0"]),
        ("--volume 12XB", ["12XB"]),
        ("--volume many", ["'many'"]),
        ("--volume 2000PiB", ["2000PiB"]),
        ("--volume 1000", ["1000", "512"]),
        ("--volume 1MiB,block=1024", ["1024", "4096"]),
        ("--volume 1MiB,blocks=512", ["'blocks=512'"]),
        ("--volume 1MiB,file=", ["'file='"]),
        ("--volume 1MiB,name=a/b", ["'a/b'"]),
        ("--volume 1MiB --iqn disk", ["--iqn", "'disk'"]),
        ("--volume 1MiB --iqn iqn.2026-11.org.example:a/b", ["--iqn", "a/b"]),
        ("--volume 1MiB --portal 127.0.0.1", ["--portal", "'127.0.0.1'"]),
        ("--volume 1MiB --portal 127.0.0.1:65536", ["--portal", "65536"]),
        ("--volume 1MiB --portal a..b:3260", ["--portal", "a..b"]),
        ("--volume 1MiB --portal 192.0.2.1:0", ["192.0.2.1:0"]),
        ("--volume 1MiB --broker http://here", ["--broker", "http://here"]),
        ("--volume 1MiB --copy-listen 127.0.0.1:0", ["--copy-listen", "remote_copy"]),
        ("--volume 1MiB --log-level loud", ["--log-level", "'loud'"]),
        ("--volume 1MiB --colour", ["--colour"]),
        ("--volume", ["--volume"]),
        ("--config /nonexistent/site.toml", ["/nonexistent/site.toml", "No such file"]),
        ("--config /", ["/", "directory"]),
    ],
)
def test_wrong_words(words: str, parts: list[str], refused: Refused) -> None:
    refused(words.split(), parts)


def test_wrong_words_in_a_process_of_its_own() -> None:
    assert_user_error(["--volume", "many"], "'many'")
    assert_user_error(["--volume"], "--volume")


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_port_in_use(taken_port: int) -> None:
    assert_user_error(["--volume", "1MiB", "--portal", f"127.0.0.1:{taken_port}"], f"127.0.0.1:{taken_port}", "in use")


def test_privileged_port() -> None:
    first_free = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if first_free.exists() and int(first_free.read_text()) <= 1:
        pytest.skip("this machine has no privileged ports")
    assert_user_error(["--volume", "1MiB", "--portal", "127.0.0.1:1"], "127.0.0.1:1", "ermission")


@pytest.mark.parametrize(
    ("make", "name", "reason"),
    [
        (lambda path: path.mkdir(), "disk.img", "not a regular file"),
        (lambda path: path.touch(), "disk.img/below", "directory"),
        (lambda path: None, "nowhere/disk.img", "no such directory"),
        (lambda path: (path.write_bytes(bytes(1 << 20)), path.chmod(0o444)), "disk.img", "read-only"),
        (lambda path: path.parent.chmod(0o555), "disk.img", "read-only"),
        (lambda path: path.write_bytes(bytes(4096)), "disk.img", "4096 bytes"),
        (lambda path: path.symlink_to("/dev/full"), "disk.img", "not a regular file"),
    ],
    ids=["directory", "below-a-file", "no-directory", "read-only-file", "read-only-directory", "other-size", "device"],
)
def test_volume_file_cannot_be_used(make: Callable[[Path], object], name: str, reason: str, tmp_path: Path) -> None:
    make(tmp_path / "disk.img")
    assert_user_error([*ANY, "--volume", f"1MiB,file={tmp_path / name}"], str(tmp_path / name), reason)


async def test_volume_file_of_another_array(tmp_path: Path) -> None:
    words = (*ANY, "--volume", f"1MiB,file={tmp_path / 'disk.img'}")
    async with running_array(tmp_path, *words) as array:
        assert_user_error(words, "disk.img", "another array")
        await array.assert_serving()


def test_state_directory_is_a_file(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.touch()
    assert_user_error([*ANY, "--volume", "1MiB", "--state-dir", str(state)], str(state), "not a directory")


def test_state_directory_cannot_be_written(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o555)
    assert_user_error([*ANY, "--volume", "1MiB", "--state-dir", str(state)], str(state))


def test_metadata_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "metadata.sqlite").write_bytes(b"no database" * 100)
    assert_user_error([*ANY, "--volume", "1MiB", "--state-dir", str(tmp_path)], "metadata.sqlite", "not a database")


def test_standard_output_is_full() -> None:
    with open("/dev/full", "w") as full:
        words = [sys.executable, "-m", "target", *ANY, "--volume", "1MiB"]
        result = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=20)
    assert result.stderr == "pairvol-array: standard output: No space left on device\n"
    assert result.returncode == 2


# ---------------------------------------------------------------------------------- mistakes: the configuration file


@dataclass
class Site:
    """A configuration that is right; a test spoils it by replacing text."""

    directory: Path

    @property
    def text(self) -> str:
        return f"""
[array]
iqn = "iqn.2026-11.org.pairvol:site"
serial = "30096"
state_dir = "{self.directory / "state"}"
portals = ["127.0.0.1:0"]
[remote_copy]
listen = "127.0.0.1:{free_port()}"
peer = "127.0.0.1:1"
peer_serial = "30095"
[[volumes]]
name = "quorum"
lun = 0
size = "4MiB"
file = "quorum.img"
quorum = true
[[volumes]]
name = "data"
lun = 1
size = "4MiB"
file = "data.img"
[[pairs]]
name = "quorum0"
volume = "quorum"
fence = "data"
"""

    def spoiled(self, before: str, after: str) -> list[str]:
        """The words to run it with one mistake."""
        text = self.text
        assert text.count(before) == 1
        return self.words(text.replace(before, after))

    def words(self, text: str) -> list[str]:
        file = self.directory / "site.toml"
        file.write_text(text)
        return ["--config", str(file)]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def test_the_configuration_is_right_before_it_is_spoiled(site: Site, tmp_path: Path) -> None:
    async with running_array(tmp_path, *site.words(site.text)) as array:
        assert [url.rpartition("/")[2] for url in array.urls] == ["0", "1"]


@pytest.mark.parametrize(
    ("before", "after", "parts"),
    [
        ("[array]", "[array", ["not TOML"]),
        ("[array]", "deep = " + "[" * 5000 + "\n[array]", ["not TOML"]),
        ("[array]", "[arrays]", ["array", "missing"]),
        ('[array]\niqn = "iqn.2026-11.org.pairvol:site"', "[array]\niqn = 5", ["array.iqn = 5", "text"]),
        ("iqn.2026-11.org.pairvol:site", "site", ["array.iqn", "'site'"]),
        ('serial = "30096"', 'serial = "96"', ["array.serial", "'96'", "digits"]),
        ('portals = ["127.0.0.1:0"]', 'portals = "127.0.0.1:0"', ["array.portals", "list"]),
        ('portals = ["127.0.0.1:0"]', 'portals = ["here"]', ["array.portals", "'here'"]),
        ('portals = ["127.0.0.1:0"]', "portals = []", ["array.portals"]),
        ("[array]", "[array]\ncolour = 1", ["array.colour", "not a known key"]),
        ("[array]", "colour = 1\n[array]", ["colour", "not a known key"]),
        ('file = "data.img"', 'file = "data.img"\nsiez = "1MiB"', ["volumes[1].siez", "not a known key"]),
        ("lun = 1", "lun = 0", ["volumes[1].lun = 0", "twice"]),
        ("lun = 1", "lun = 16384", ["volumes[1].lun = 16384"]),
        ('name = "data"', 'name = "quorum"', ["volumes[1].name = 'quorum'", "twice"]),
        ('file = "data.img"', 'file = "quorum.img"', ["volumes[1].file = 'quorum.img'", "twice"]),
        ('size = "4MiB"\nfile = "data.img"', 'size = "4 many"', ["volumes[1].size", "4 many"]),
        ('size = "4MiB"\nfile = "data.img"', "", ["volumes[1].size", "missing"]),
        ('size = "4MiB"\nfile = "data.img"', 'file = "data.img"', ["data.img", "size"]),
        ('size = "4MiB"\nfile = "data.img"', 'size = "5TiB"\nfile = "data.img"\nblock = 520', ["block", "520"]),
        ("quorum = true", "quorum = 1", ["volumes[0].quorum = 1", "true or false"]),
        ('volume = "quorum"', 'volume = "quorun"', ["pairs[0].volume = 'quorun'"]),
        ('name = "quorum0"', 'name = "../quorum0"', ["pairs[0].name", "'../quorum0'"]),
        ('fence = "data"', 'fence = "high"', ["pairs[0].fence = 'high'"]),
        ('fence = "data"', '[[pairs]]\nname = "other"\nvolume = "quorum"', ["pairs[1].volume", "two pairs"]),
        ('file = "quorum.img"', "", ["pairs[0].volume", "memory"]),
        ('size = "4MiB"\nfile = "quorum.img"', 'size = "5TiB"\nfile = "quorum.img"', ["quorum", "limit"]),
        ('peer_serial = "30095"', 'peer_serial = "30096"', ["remote_copy.peer_serial = '30096'"]),
        ('peer_serial = "30095"', "", ["remote_copy.peer_serial", "missing"]),
        ("[remote_copy]", "[events]", ["events"]),
    ],
)
def test_wrong_configuration(before: str, after: str, parts: list[str], site: Site, refused: Refused) -> None:
    refused(site.spoiled(before, after), parts)


def test_wrong_configuration_in_a_process_of_its_own(site: Site) -> None:
    assert_user_error(site.spoiled("[array]", "[array"), "site.toml", "not TOML")


def test_pairs_without_the_other_array(site: Site) -> None:
    before, _, after = site.text.partition("[remote_copy]")
    assert_user_error(site.words(before + "[[volumes]]" + after.partition("[[volumes]]")[2]), "[remote_copy]")


def test_pairs_without_a_state_directory(site: Site) -> None:
    text = "\n".join(line for line in site.text.splitlines() if not line.startswith("state_dir"))
    assert_user_error(site.words(text), "array.state_dir", "missing")


def test_volumes_from_both_places(site: Site) -> None:
    assert_user_error([*site.words(site.text), "--volume", "1MiB"], "--volume", "--config")


def test_copy_port_in_use(site: Site, taken_port: int) -> None:
    words = [*site.words(site.text), "--copy-listen", f"127.0.0.1:{taken_port}"]
    assert_user_error(words, f"127.0.0.1:{taken_port}", "in use")


async def test_state_of_another_array(site: Site, tmp_path: Path) -> None:
    async with running_array(tmp_path, *site.words(site.text)):
        pass
    assert_user_error(site.spoiled('serial = "30096"', 'serial = "30097"'), "30096", "30097", "belongs")


async def test_paired_volume_that_changed_its_size(site: Site, tmp_path: Path) -> None:
    async with running_array(tmp_path, *site.words(site.text)):
        pass
    (tmp_path / "state" / "quorum.img").unlink()
    words = site.spoiled('size = "4MiB"\nfile = "quorum.img"', 'size = "1GiB"\nfile = "quorum.img"')
    assert_user_error(words, "quorum0.bitmap", "size")


async def test_two_arrays_side_by_side_are_refused_nothing(tmp_path: Path) -> None:
    async with running_array(tmp_path, name="one") as one, running_array(tmp_path, name="two") as two:
        assert one.address != two.address
        await ArrayProcess.assert_serving(one)
        await two.assert_serving()
