"""The words for the pace of SANITIZE and FORMAT UNIT, and for encrypted volumes."""

import pytest

from storage_model.errors import UserError
from target.__main__ import configuration
from target.config import parse_config, parse_volume_words

FILE = """
[array]
state_dir = "state"
background_rate = "32MiB"
[[volumes]]
name = "data"
file = "data.img"
encrypted = true
"""
PAIR = """
[remote_copy]
listen = "127.0.0.1:1"
peer = "127.0.0.1:2"
peer_serial = "12345"
[[pairs]]
name = "pair"
volume = "data"
"""


def test_the_file() -> None:
    config = parse_config(FILE, "a.toml")
    assert config.background_rate == 32 << 20
    assert config.volumes[0].encrypted


def test_the_command_line() -> None:
    config, _ = configuration(["--volume", "64MiB,encrypted", "--volume", "64MiB", "--background-rate", "1MiB"])
    assert config.background_rate == 1 << 20
    assert [volume.encrypted for volume in config.volumes] == [True, False]
    assert configuration(["--volume", "64MiB"])[0].background_rate == 128 << 20


@pytest.mark.parametrize("rate", ["0", "fast", "-1MiB"])
def test_a_rate_that_is_none(rate: str) -> None:
    with pytest.raises(UserError, match="--background-rate"):
        configuration(["--volume", "64MiB", f"--background-rate={rate}"])


@pytest.mark.parametrize("rate", ["1B", "1048575"])
def test_a_rate_at_which_nothing_ends(rate: str) -> None:
    """Whoever waits for a step waits for 1 MiB of it."""
    with pytest.raises(UserError) as caught:
        configuration(["--volume", "64MiB", "--background-rate", rate])
    assert str(caught.value) == f"--background-rate: {rate} a second is too slow (at least 1MiB)"
    with pytest.raises(UserError, match=r"a\.toml: array\.background_rate: .* is too slow \(at least 1MiB\)"):
        parse_config(FILE.replace("32MiB", rate), "a.toml")


def test_encryption_has_no_value() -> None:
    with pytest.raises(UserError, match="encrypted=yes"):
        parse_volume_words("64MiB,encrypted=yes", 0)


def test_a_paired_volume_is_not_encrypted() -> None:
    with pytest.raises(UserError, match="'data' is encrypted: a paired volume is not"):
        parse_config(FILE + PAIR, "a.toml")
