"""Where the link's key and certificates are: every error is one line that names the key, and never the secret."""

from pathlib import Path

import pytest

from storage_model.errors import UserError
from target.link_config import RemoteCopyConfig, parse_remote_copy
from target.link_security import load_link_security
from tests.link_certificates import Authority

BASE = {"listen": "127.0.0.1:3262", "peer": "127.0.0.1:3272", "peer_serial": "30096"}
TLS_FILES = {"certificate_file": "a.pem", "private_key_file": "a.key", "ca_file": "/etc/ca.pem"}


def parse(**more: object) -> RemoteCopyConfig:
    return parse_remote_copy("dir/f.toml", {**BASE, **more}, "30095")


def test_files_are_relative_to_the_configuration() -> None:
    config = parse(key_file="link.key", **TLS_FILES)
    assert config.key is not None and config.tls is not None
    assert config.key.file == "dir/link.key"
    assert (config.tls.certificate_file, config.tls.private_key_file) == ("dir/a.pem", "dir/a.key")
    assert config.tls.ca_file == "/etc/ca.pem"


def test_without_either() -> None:
    security = load_link_security(parse())
    assert security.key is None and security.tls is None


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"key_file": "f", "key_env": "V"}, "remote_copy.key_file or key_env must say where the key is, not both"),
        ({"key_env": "my secret!"}, "remote_copy.key_env must be the name of an environment variable"),
        ({"key_file": 7}, "remote_copy.key_file = 7 must be text"),
        ({"key": "secret"}, "remote_copy.key is not a known key"),
        (
            {"certificate_file": "a.pem", "private_key_file": "a.key"},
            "remote_copy.ca_file is missing: TLS needs certificate_file, private_key_file, ca_file",
        ),
        (
            {"ca_file": "ca.pem"},
            "remote_copy.certificate_file is missing: TLS needs certificate_file, private_key_file, ca_file",
        ),
    ],
)
def test_wrong_configuration(more: dict[str, object], line: str) -> None:
    with pytest.raises(UserError) as error:
        parse(**more)
    assert str(error.value) == f"dir/f.toml: {line}"


def test_key_from_the_environment_and_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINK_KEY", "0123456789abcdef")
    key = load_link_security(parse(key_env="LINK_KEY")).key
    assert key is not None and key.value == b"0123456789abcdef"
    monkeypatch.setenv("LINK_KEY", "0123456789abcde")
    with pytest.raises(UserError, match="LINK_KEY: a link key has 16 to 255 bytes") as error:
        load_link_security(parse(key_env="LINK_KEY"))
    assert "0123456789" not in str(error.value)


def secured(directory: Path, **more: object) -> RemoteCopyConfig:
    return parse_remote_copy(str(directory / "f.toml"), {**BASE, **more}, "30095")


def test_files_that_others_can_read_are_refused(tmp_path: Path) -> None:
    certificate, private_key, ca = Authority(tmp_path).issue("a", "30095").words()
    files = {"certificate_file": certificate, "private_key_file": private_key, "ca_file": ca}
    assert load_link_security(secured(tmp_path, **files)).tls is not None
    Path(private_key).chmod(0o644)
    with pytest.raises(UserError, match=r"remote_copy.private_key_file: .* is open to others"):
        load_link_security(secured(tmp_path, **files))
    key_file = tmp_path / "link.key"
    key_file.write_text("correct horse battery staple\n")
    key_file.chmod(0o640)
    with pytest.raises(UserError, match=r"remote_copy.key_file: .* is open to others"):
        load_link_security(secured(tmp_path, key_file="link.key"))


def test_files_that_are_not_what_they_should_be(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, private_key, ca = authority.issue("a", "30095").words()
    files = {"certificate_file": certificate, "private_key_file": private_key, "ca_file": ca}
    nonsense, locked = tmp_path / "nonsense", tmp_path / "locked"
    for file in (nonsense, locked):
        file.touch(mode=0o600)
    nonsense.write_text("nonsense")
    locked.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    wrong: list[tuple[str, str, str]] = [
        *((key, str(tmp_path / "missing"), "No such file or directory") for key in files),
        *((key, str(nonsense), "certificate_file, private_key_file, ca_file: ") for key in files),
        ("private_key_file", authority.issue("b", "30096").words()[1], "KEY_VALUES_MISMATCH"),
        ("private_key_file", str(locked), "has a passphrase"),
    ]
    for key, value, expected in wrong:
        with pytest.raises(UserError) as error:
            load_link_security(secured(tmp_path, **{**files, key: value}))
        assert expected in str(error.value) and "\n" not in str(error.value), (key, error.value)
