"""Access rules as users write them, in a file and in words; secrets from files and from the environment."""

import os
from ipaddress import ip_network
from pathlib import Path

import pytest

from storage_model.errors import UserError
from storage_model.secret import Secret
from target.__main__ import configuration
from target.access_config import AccessConfig, AccountConfig, SecretSource, check_luns, parse_access, parse_access_words
from target.config import parse_config
from target.iscsi.access import AccessRule
from target.iscsi.chap import ChapAccount
from target.scsi.lun_mask import LunMask
from target.secret_files import load_access_rules, read_secret

HOST = AccountConfig("host", SecretSource(file="/etc/pairvol/secrets/host"))
ARRAY = AccountConfig("array", SecretSource(variable="ARRAY_SECRET"))
FULL = AccessConfig(
    "iqn.2026-11.org.example:host-*", (ip_network("127.0.0.0/8"), ip_network("::1/128")), (0, 1), True, HOST, ARRAY
)

TABLES = """
[array]
[[volumes]]
name = "a"
size = "1MiB"
[[volumes]]
name = "b"
size = "1MiB"

[[access]]
initiator = "iqn.2026-11.org.example:host-*"
addresses = ["127.0.0.0/8", "::1"]
luns = [1, 0, 1]
read_only = true
chap_user = "host"
chap_secret_file = "secrets/host"
mutual_user = "array"
mutual_secret_env = "ARRAY_SECRET"

[[access]]
"""
WORDS = (
    "initiator=iqn.2026-11.org.example:host-*,address=127.0.0.0/8,address=::1,lun=0,lun=1,read-only,"
    "chap-user=host,chap-secret-file=/etc/pairvol/secrets/host,mutual-user=array,mutual-secret-env=ARRAY_SECRET"
)


def test_tables() -> None:
    """A secret file is looked for beside the file that names it."""
    assert parse_config(TABLES, "/etc/pairvol/site.toml").access == (FULL, AccessConfig())


def test_the_example() -> None:
    file = Path(__file__).resolve().parents[2] / "scripts" / "examples" / "access.toml"
    hosts, shims, backup = parse_config(file.read_text(encoding="utf-8"), str(file)).access
    assert hosts.chap is not None and hosts.chap.secret.file == str(file.parent / "secrets" / "host")
    assert hosts.mutual is not None and shims.chap is not None and shims.mutual is None
    assert (backup.luns, backup.read_only, backup.chap) == ((1,), True, None)


def test_words() -> None:
    assert parse_access_words(WORDS) == FULL
    assert parse_access_words("initiator=*") == AccessConfig()


def test_words_on_the_command_line_take_the_place_of_the_file_s(tmp_path: Path) -> None:
    file = tmp_path / "array.toml"
    file.write_text(TABLES)
    config, _ = configuration(["--config", str(file), "--access", "initiator=*:a", "--access", "lun=1"])
    assert [(rule.initiator, rule.luns) for rule in config.access] == [("*:a", None), ("*", (1,))]


def test_no_rule_is_no_restriction() -> None:
    config, _ = configuration(["--volume", "1MiB"])
    assert config.access == () and load_access_rules(config.access) == ()


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("192.0.2.7", "192.0.2.7/32"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ("::/0", "::/0"),
        ("2001:db8::/96", "2001:db8::/96"),
    ],
)
def test_networks(text: str, network: str) -> None:
    """An IPv4 network in IPv6's clothes is IPv4, as the peers that it is meant for."""
    assert parse_access_words(f"address={text}").addresses == (ip_network(network),)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("initiator = ''", "access[0].initiator = '' must be an iSCSI name or a shell pattern"),
        (f"initiator = '{'x' * 224}'", "must be an iSCSI name or a shell pattern"),
        ("initiator = 7", "access[0].initiator = 7 must be text"),
        ("addresses = []", "access[0].addresses = [] must name at least one network"),
        ("addresses = ['localhost']", "access[0].addresses: 'localhost' is not a network"),
        ("addresses = ['10.0.0.1/8']", "access[0].addresses: '10.0.0.1/8' is not a network"),
        ("addresses = '::1'", "access[0].addresses = '::1' must be a list"),
        ("luns = [-1]", "access[0].luns: -1 is not a LUN"),
        ("luns = [true]", "access[0].luns: True is not a LUN"),
        ("luns = [16384]", "access[0].luns: 16384 is not a LUN"),
        ("luns = [3]", "access[0]: LUN 3 is none of the volumes'"),
        ("read_only = 'yes'", "access[0].read_only = 'yes' must be true or false"),
        ("chap_secret = 'hush'", "access[0].chap_secret is not a known key"),
        ("chap_user = 'a'", "access[0].chap_secret_file or access[0].chap_secret_env must say where the secret is"),
        ("chap_user = ''\nchap_secret_env = 'A'", "access[0].chap_user must be 1 to 255 bytes of printable text"),
        ("chap_user = 'a\\u0000'\nchap_secret_env = 'A'".replace("'", '"'), "access[0].chap_user must be 1 to 255"),
        ("chap_secret_file = 'a'", "access[0].chap_user is missing"),
        (
            "chap_user = 'a'\nchap_secret_file = 'a'\nchap_secret_env = 'A'",
            "access[0].chap_secret_file or access[0].chap_secret_env must say where the secret is, not both",
        ),
        ("chap_user = 'a'\nchap_secret_env = 'A B'", "access[0].chap_secret_env must be the name of an environment"),
        ("mutual_user = 'a'\nmutual_secret_env = 'A'", "to an initiator that does, too: chap_user is missing"),
    ],
)
def test_what_is_wrong_in_a_table(line: str, message: str) -> None:
    text = f"[array]\n[[volumes]]\nname = 'a'\nsize = '1MiB'\n[[access]]\n{line}\n"
    with pytest.raises(UserError) as raised:
        parse_config(text, "a.toml")
    assert str(raised.value).startswith("a.toml: ") and message in str(raised.value)
    assert "\n" not in str(raised.value) and "hush" not in str(raised.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "'' is not one of initiator="),
        ("chap-secret=hush", "'chap-secret' is not one of"),
        ("initiator", "initiator needs a value (initiator=…)"),
        ("chap-user=,chap-secret-file=hush", "chap-user needs a value (chap-user=…)"),
        ("read-only=hush", "read-only takes no value"),
        ("initiator=a,initiator=b", "initiator is there twice"),
        ("address=x", "address: 'x' is not a network"),
        ("lun=x", "lun: 'x' is not a LUN"),
        ("chap-user=a", "chap-secret-file or chap-secret-env must say where the secret is"),
        ("chap-user=a,chap-secret-file=hush,chap-secret-env=B", "must say where the secret is, not both"),
        ("mutual-user=a,mutual-secret-env=B", "initiator that does, too: chap-user is missing"),
        ("chap-secret-env=hush", "chap-user is missing"),
    ],
)
def test_what_is_wrong_in_words(words: str, message: str) -> None:
    """The value of a word that is not known may be a secret: it is not repeated."""
    with pytest.raises(UserError) as raised:
        parse_access_words(words, 1)
    assert str(raised.value).startswith("--access (number 2): ") and message in str(raised.value)
    assert "hush" not in str(raised.value)


def test_a_lun_that_no_volume_has() -> None:
    with pytest.raises(UserError, match=r"^--access \(number 1\): LUN 4 is none of the volumes'$"):
        check_luns([parse_access_words("lun=0,lun=4")], {0, 1})


def test_too_many_rules() -> None:
    with pytest.raises(UserError, match="1025 access rules, at most 1024"):
        parse_access("a.toml", [{}] * 1025)


# ------------------------------------------------------------------------------------------------------ the secrets


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("correct horse battery\n")
    path.chmod(0o600)
    return path


def source(path: Path) -> SecretSource:
    return SecretSource(file=str(path), where="a.toml: key")


def test_secret_from_a_file(secret_file: Path) -> None:
    assert read_secret(source(secret_file)) == Secret(b"correct horse battery")


def test_secret_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST_SECRET", "correct horse battery")
    assert read_secret(SecretSource(variable="HOST_SECRET")) == Secret(b"correct horse battery")
    with pytest.raises(UserError, match=r"^a: the environment has no variable HOST_SECRETS$"):
        read_secret(SecretSource(variable="HOST_SECRETS", where="a"))


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o622])
def test_a_file_that_others_may_read_or_change(secret_file: Path, mode: int) -> None:
    secret_file.chmod(mode)
    with pytest.raises(UserError) as raised:
        read_secret(source(secret_file))
    assert str(raised.value) == (
        f"a.toml: key: {secret_file} is open to others than its owner: chmod 600 {secret_file}"
    )
    secret_file.chmod(0o600)  # what the line says helps
    read_secret(source(secret_file))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^a\.toml: key: .*/nothing: No such file or directory$"):
        read_secret(source(tmp_path / "nothing"))


def test_what_is_no_file(tmp_path: Path) -> None:
    """A FIFO without a writer must not hold up the array either."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    for path in (tmp_path, fifo):
        with pytest.raises(UserError, match=r"is not a regular file$"):
            read_secret(source(path))


def test_a_file_without_end(secret_file: Path) -> None:
    secret_file.write_bytes(b"x" * (1 << 20))
    with pytest.raises(UserError, match="12 to 255 bytes"):
        read_secret(source(secret_file))


def test_rules_with_their_secrets(secret_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARRAY_SECRET", "staple and so on")
    configs = [
        AccessConfig("*:a", (), (1, 2), False, AccountConfig("host", source(secret_file)), ARRAY),
        AccessConfig(read_only=True),
        AccessConfig("*:b"),
    ]
    assert load_access_rules(configs) == (
        AccessRule(
            "*:a",
            (),
            LunMask(frozenset({1, 2})),
            ChapAccount("host", Secret(b"correct horse battery")),
            ChapAccount("array", Secret(b"staple and so on")),
        ),
        AccessRule(mask=LunMask(None, True)),
        AccessRule("*:b"),
    )


@pytest.mark.parametrize("same_rule", [True, False])
def test_one_secret_for_both_directions(secret_file: Path, same_rule: bool) -> None:
    """RFC 7143 §9.2.1. Not within a rule, and not from one to another."""
    account = AccountConfig("host", source(secret_file))
    other = secret_file.with_name("other")
    other.write_text("staple and so on")
    other.chmod(0o600)
    first = AccessConfig(chap=account, where="rule 0")
    second = AccessConfig(
        chap=account if same_rule else AccountConfig("x", source(other)),
        mutual=AccountConfig("array", source(secret_file)),
        where="rule 1",
    )
    with pytest.raises(UserError, match=r"^rule 1: the mutual secret is also the CHAP secret of rule [01]") as raised:
        load_access_rules([first, second])
    assert "horse" not in str(raised.value)
