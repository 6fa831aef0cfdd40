"""Two arrays with a key and certificates mirror a pair; with another key they do not, and both say why."""

from pathlib import Path

import pytest

from storage_model.pair_state import PairState
from storage_model.spec.pair_cdb import PairOut, StatusFlag
from tests.eventually import eventually
from tests.integration.pair_of_arrays import SERIALS, ArrayUnderTest, PairSpec, free_port
from tests.link_certificates import Authority

PAIR = PairSpec("data", fence="never")


def secured(site: str, directory: Path, port: int, section: str) -> ArrayUnderTest:
    """Array A dials, array B listens at the port."""
    addresses = (f"127.0.0.1:{port}", "127.0.0.1:1")
    listen, peer = addresses if site == "b" else (f"127.0.0.1:{free_port()}", addresses[0])
    array = ArrayUnderTest(site, directory, [PAIR], listen, peer)
    array.config.write_text(array.config.read_text().replace("[remote_copy]\n", "[remote_copy]\n" + section))
    return array


def key_file(directory: Path, name: str, text: str) -> str:
    path = directory / name
    path.touch(mode=0o600)
    path.write_text(text + "\n")
    return f'key_file = "{path.name}"\n'


@pytest.mark.parametrize("words", ["key", "tls", "key tls"])
async def test_a_pair_over_a_secured_link(words: str, tmp_path: Path) -> None:
    authority, port = Authority(tmp_path), free_port()
    sections = {site: key_file(tmp_path, "key", "0123456789 abcdef") if "key" in words else "" for site in "ab"}
    if "tls" in words:
        sections = {site: sections[site] + authority.issue(site, SERIALS[site]).toml() for site in "ab"}
    a, b = (secured(site, tmp_path, port, sections[site]) for site in "ab")
    try:
        await b.start()
        await a.start()
        await a.until_linked()
        await a.control(0, PairOut.CREATE)
        await a.until(0, PairState.PAIR)
        data = bytes(range(256)) * 256
        assert (await a.write(0, 8, data)).status == 0
        assert a.file("data") == b.file("data") and data in b.file("data")
        await b.kill()  # and it comes back by itself
        await eventually(lambda: "is down" in a.log, what="the link down")
        await b.start()
        await a.until_linked()
        for array in (a, b):
            assert "Traceback" not in array.log and "open to everybody" not in array.log
            assert "0123456789" not in array.log
    finally:
        await a.stop()
        await b.stop()


async def test_another_key_is_told_by_both_arrays(tmp_path: Path) -> None:
    port = free_port()
    a = secured("a", tmp_path, port, key_file(tmp_path, "key-a", "0123456789 abcdef"))
    b = secured("b", tmp_path, port, key_file(tmp_path, "key-b", "fedcba 9876543210"))
    told = "array 30095 does not prove that it has the key of array 30096"
    try:
        await b.start()
        await a.start()
        await eventually(
            lambda: f"link to array 30095 refused: {told}" in b.log, what="the reason at the array that listens"
        )
        refused = f"link to array 30096 refused: the other array refuses the link: {told}"
        await eventually(lambda: refused in a.log, what="the reason at the array that dials")
        for array in (a, b):
            assert StatusFlag.LINK_UP not in (await array.status(0)).flags
            assert array.log.count("refused: ") == 1 and "Traceback" not in array.log
    finally:
        await a.stop()
        await b.stop()
