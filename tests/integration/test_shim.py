"""The shim as a filter that nobody notices (Figure 6), and as a command."""

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from initiator_shim.initiator_transport import discover
from storage_model.spec.scsi_task import TaskFunction
from tests.eventually import eventually
from tests.integration.client_tools import run
from tests.integration.pair_of_arrays import PairSpec, pair_of_arrays
from tests.integration.raw_initiator import RawInitiator
from tests.integration.shims import GOOD, RESERVE_6, ShimUnderTest, plain_array, shim
from tests.integration.shims import PLAIN_TARGET as TARGET


@asynccontextmanager
async def plain_shim(directory: Path) -> AsyncIterator[ShimUnderTest]:
    async with plain_array(directory) as port, shim(directory, port) as running:
        yield running


async def test_discovery_leads_to_the_shim(tmp_path: Path) -> None:
    async with plain_shim(tmp_path) as running:
        assert running.urls == [f"iscsi://127.0.0.1:{running.port}/{TARGET}/{lun}" for lun in (0, 1)]
        assert await discover("127.0.0.1", running.port) == [(TARGET, [f"127.0.0.1:{running.port},1"])]


@pytest.mark.parametrize("digests", [False, True])
async def test_data_in_both_directions(tmp_path: Path, digests: bool) -> None:
    data = bytes(range(256)) * 4096
    async with plain_shim(tmp_path) as running:
        host = await running.host(digests=digests)
        assert host.negotiated.header_digest == host.negotiated.data_digest == digests
        blocks = (len(data) // 512).to_bytes(2)
        assert (await host.execute(0, b"\x2a" + bytes(6) + blocks + b"\0", data)).status == GOOD
        read = await host.execute(0, b"\x28" + bytes(6) + blocks + b"\0", data_in_length=len(data))
        assert read.data_in == data
        small = b"\x28" + bytes(6) + b"\0\x08\0"
        outcomes = await asyncio.gather(*(host.execute(0, small, data_in_length=4096) for _ in range(200)))
        assert all(outcome.data_in == data[:4096] for outcome in outcomes)
        assert await host.task_management(TaskFunction.LOGICAL_UNIT_RESET, 0) == 0
        await host.ping()
        await host.logout()


async def test_a_reserve_of_an_ordinary_volume_passes(tmp_path: Path) -> None:
    async with plain_shim(tmp_path) as running:
        host, other = await running.host("one"), await running.host("two")
        assert (await host.execute(0, RESERVE_6)).status == GOOD
        assert (await other.execute(0, RESERVE_6)).status == 0x18
        host.close()
        other.close()


def told_of(running: ShimUnderTest, host: str) -> list[str]:
    """What the log says of a host, behind its name and address."""
    told = (line.partition(f"iqn.2026-11.org.example:{host} at 127.0.0.1:")[2] for line in running.log.splitlines())
    return [line.partition(": ")[2] for line in told if line and line.partition(": ")[0].isdecimal()]


async def test_the_log_tells_logins_logouts_and_losses_apart(tmp_path: Path) -> None:
    async with plain_array(tmp_path) as port, shim(tmp_path, port) as running:
        polite, gone, kept = [await running.host(name) for name in ("polite", "gone", "kept")]
        await polite.logout()
        gone.close()
        async with RawInitiator.connection(("127.0.0.1", running.port)) as wrong:  # it stays: the array closes
            names = {"InitiatorName": "iqn.2026-11.org.example:wrong", "TargetName": f"{TARGET}-not"}
            wrong.send(wrong.login_request(names))
            await wrong.hung_up()
        await discover("127.0.0.1", running.port, "iqn.2026-11.org.example:curious")
        login = f"logged in to {TARGET}"
        expected = {
            "polite": [login, "logged out"],
            "gone": [login, "connection closed by the host: without a logout"],
            "kept": [login],
            "wrong": ["connection closed by the array: before the login had ended"],
            "curious": ["logged in for discovery", "logged out"],
        }
        await eventually(lambda: {host: told_of(running, host) for host in expected} == expected, what="the log")
        running.process._process.send_signal(signal.SIGTERM)
        await kept.ended
        lines = [login, "connection closed by the shim: the shim stops"]
        await eventually(lambda: told_of(running, "kept") == lines, what="who ended it")


async def test_an_array_that_dies_is_named_as_who_closed(tmp_path: Path) -> None:
    async with pair_of_arrays(tmp_path, PairSpec("data0")) as arrays, shim(tmp_path, arrays.a.port) as running:
        host = await running.host()
        await arrays.a.kill()
        await host.ended
        await eventually(lambda: "closed by the array: " in told_of(running, "host")[-1], what="who closed")


async def test_qemu_through_the_shim(tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    async with plain_shim(tmp_path) as running:
        options = f"driver=iscsi,transport=tcp,portal=127.0.0.1:{running.port},target={TARGET},lun=0"
        pattern = ["-c", "write -P 7 1M 4M", "-c", "read -P 7 1M 4M", "-c", "read -P 0 0 1M", "-c", "flush"]
        for digest in ("", ",header-digest=crc32c"):
            status, output = await run(require_tool("qemu-io"), *pattern, "--image-opts", options + digest)
            assert status == 0, output
            assert "Pattern verification failed" not in output


async def test_libiscsi_through_the_shim(tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    async with plain_shim(tmp_path) as running:
        status, output = await run(require_tool("iscsi-ls"), "-s", f"iscsi://127.0.0.1:{running.port}")
        assert status == 0
        assert f"Target:{TARGET} Portal:127.0.0.1:{running.port},1" in output
        status, output = await run(require_tool("iscsi-inq"), running.urls[1])
        assert status == 0
        assert "DIRECT_ACCESS" in output


async def test_a_signal_ends_it_cleanly(tmp_path: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        async with plain_array(tmp_path) as port, shim(tmp_path, port) as running:
            host = await running.host()
            running.process._process.send_signal(number)
            async with asyncio.timeout(10):
                await running.process._process.wait()
                await host.ended
            assert running.process.exit_status == 0
            assert "Traceback" not in running.log


async def test_wrong_arguments_are_one_line_each(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "initiator_shim"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = taken.getsockname()[1]
        async with plain_array(tmp_path) as port:
            taken.listen()
            in_use = ["--array", f"127.0.0.1:{port}", "--listen", f"127.0.0.1:{nobody}"]
            assert await run(*command, *in_use) == (
                2,
                f"pairvol-shim: --listen 127.0.0.1:{nobody}: Address already in use\n",
            )
    status, output = await run(*command, "--array", f"127.0.0.1:{nobody}", "--listen", "127.0.0.1:0")
    assert status == 2
    assert output.startswith(f"pairvol-shim: --array 127.0.0.1:{nobody}: cannot connect") and output.count("\n") == 1
    for wrong in (["--array", "somewhere"], ["--deadline", "0"], ["--broker", "http://h"], ["--name", "a/b"]):
        status, output = await run(*command, *wrong)
        assert status == 2
        assert output.startswith(f"pairvol-shim: {wrong[0]}") and output.count("\n") == 1


async def test_a_host_that_speaks_nonsense_harms_nobody(tmp_path: Path) -> None:
    async with plain_shim(tmp_path) as running:
        host = await running.host()
        for nonsense in (b"GET / HTTP/1.1\r\n\r\n" * 10, bytes(200), b"\xff" * 4096, b"\x43"):
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.write(nonsense)
            writer.write_eof()
            async with asyncio.timeout(10):
                await reader.read()
            writer.close()
            await writer.wait_closed()
        assert (await host.execute(0, bytes(6))).status == GOOD
        assert "Traceback" not in running.log
        host.close()
