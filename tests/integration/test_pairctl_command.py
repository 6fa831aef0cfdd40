"""The ``pairctl`` command against two arrays."""

import asyncio
import json
import sys
from pathlib import Path

from scripts.failover_drill.processes import ROOT
from storage_model.pair_state import PairState
from tests.integration.pair_of_arrays import PairSpec, free_port, pair_of_arrays


async def pairctl(port: int, *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "initiator_shim.pairctl", "-a", f"iscsi://127.0.0.1:{port}", *arguments,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        output, error = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), error.decode()


async def test_the_life_of_a_pair(tmp_path: Path) -> None:
    async with pair_of_arrays(tmp_path, PairSpec("data0"), PairSpec("data1")) as arrays:
        a, b = arrays.a.port, arrays.b.port
        assert await pairctl(a, "create", "data0") == (0, "", "")
        assert await pairctl(b, "wait", "data0", "PAIR") == (0, "", "")
        status, output, _ = await pairctl(a, "status", "--peer", f"iscsi://127.0.0.1:{b}")
        assert status == 0
        assert [line.split()[-5] for line in output.splitlines()[1:3]] == ["NEVER", "NEVER"]
        status, _, error = await pairctl(a, "resync", "data0")
        assert (status, error) == (228, "pairctl: resync data0: 228 invalid state: the pair is mirroring (PAIR)\n")
        assert await pairctl(a, "split", "data0", "-rw") == (0, "", "")
        assert await pairctl(a, "wait", "data0", "PAIR", "--timeout", "0.3") == (
            3, "", "pairctl: wait data0: not PAIR in 0.3 s, but PSUS\n",
        )  # fmt: skip
        _, output, _ = await pairctl(b, "status", "--json", "data0")
        (pair,) = json.loads(output)
        assert (pair["role"], pair["state"], pair["s_vol_writable"]) == ("S-VOL", "PSUS", True)
        assert await pairctl(b, "resync", "data0", "--swap") == (0, "", "")
        await arrays.b.until(0, PairState.PAIR)
        _, output, _ = await pairctl(b, "status", "--json")
        assert [(pair["pair"], pair["role"]) for pair in json.loads(output)] == [("data0", "P-VOL"), ("data1", "SMPL")]
        assert await pairctl(a, "delete", "data0") == (0, "", "")
        assert await pairctl(b, "wait", "data0", "SMPL", "--timeout", "5") == (0, "", "")


async def test_what_cannot_be_done(tmp_path: Path) -> None:
    async with pair_of_arrays(tmp_path, PairSpec("data0")) as arrays:
        assert (await pairctl(arrays.a.port, "split", "nope"))[::2] == (
            2, "pairctl: no pair or group nope at this array (pairs: data0)\n",
        )  # fmt: skip
        status, output, _ = await pairctl(arrays.a.port, "status")
        assert output.splitlines()[3:] == ["(R) as array 30095 sees it; --peer asks the other array"]
        await arrays.create()
        await arrays.cut()
        await arrays.a.until(0, PairState.PSUE)
        status, output, _ = await pairctl(arrays.a.port, "status")
        assert status == 0
        assert output.splitlines()[2].split()[4:6] == ["-.S-VOL", "----"]
        assert output.splitlines()[3] == ("data0: the link to array 30096 is down, or the pair is not configured there")
        peer = f"iscsi://127.0.0.1:{arrays.b.port}"
        _, output, _ = await pairctl(arrays.a.port, "status", "--peer", peer)
        assert output.splitlines()[3:] == ["data0: the link to array 30096 is down"]
        assert await pairctl(arrays.a.port, "resync", "data0") == (
            228, "",
            "pairctl: resync data0: 228 invalid state: the pair is suspended by an error (PSUE): name the good side "
            "(--good p or --good s)\n",
        )  # fmt: skip
        nobody = f"iscsi://127.0.0.1:{free_port()}"
        _, _, error = await pairctl(arrays.a.port, "status", "--peer", nobody)
        assert error == f"pairctl: cannot connect to {nobody.removeprefix('iscsi://')}: Connection refused\n"
        assert (await pairctl(arrays.a.port, "delete", "data0", "--force"))[0] == 0
        status, _, error = await pairctl(arrays.a.port, "create", "data0")
        assert status == 221
        assert error.startswith("pairctl: create data0: 221 command rejected: ")
