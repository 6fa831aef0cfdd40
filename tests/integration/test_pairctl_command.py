"""The ``pairctl`` command against two arrays."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from scripts.failover_drill.processes import ROOT
from storage_model.pair_state import PairRole, PairState
from storage_model.spec.pair_cdb import PairOut, StatusFlag
from tests.eventually import eventually
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


async def test_the_words_of_cci(tmp_path: Path) -> None:
    pairs = (PairSpec("data0", group="g"), PairSpec("data1", group="g"), PairSpec("other"))
    async with pair_of_arrays(tmp_path, *pairs) as arrays:
        a, b = arrays.a.port, arrays.b.port
        assert (await pairctl(a, "pairvolchk", "-g", "g", "-ss"))[0] == 11
        assert await pairctl(a, "paircreate", "-g", "g", "-vl", "-f", "never") == (0, "", "")
        assert await pairctl(a, "pairevtwait", "-g", "g", "-s", "PAIR", "-t", "20") == (0, "", "")
        await arrays.b.until(0, PairState.PAIR)
        await arrays.b.until(1, PairState.PAIR)
        assert [(await pairctl(port, "pairvolchk", "-g", "g"))[0] for port in (a, b)] == [2, 3]
        status, output, _ = await pairctl(b, "volchk", "-d", "data0", "-ss")
        assert (status, output) == (33, "pairvolchk : data0 : Volstat is S-VOL.[status = PAIR fence = NEVER]\n")
        status, _, error = await pairctl(a, "evtwait", "-g", "g", "-s", "PSUS", "-t", "0.2")
        assert (status, error) == (233, "pairctl: evtwait g: not PSUS in 0.2 s, but PAIR, PAIR\n")
        assert (await pairctl(a, "volchk", "nope"))[0] == 242
        assert (await pairctl(a, "volchk", "other"))[0] == 1
        status, output, _ = await pairctl(a, "watch", "-g", "g")
        assert (status, [line.split()[:3] for line in output.splitlines()]) == (
            0, [["data0", "P-VOL", "PAIR"], ["data1", "P-VOL", "PAIR"]],
        )  # fmt: skip
        # One pair of the group is not in a state for it, so that none is changed.
        assert (await pairctl(a, "pairsplit", "data1", "-rw"))[0] == 0
        status, _, error = await pairctl(a, "resync", "-g", "g", "-swaps")
        assert (status, error.split(":")[1]) == (228, " resync data1")
        assert (await pairctl(a, "volchk", "-g", "g", "-ss"))[0] == 26
        assert await pairctl(a, "pairresync", "data1", "-swapp", "--peer", f"iscsi://127.0.0.1:{b}") == (0, "", "")
        assert (await pairctl(b, "volchk", "data1"))[0] == 2
        status, _, error = await pairctl(a, "pairsplit", "-g", "g", "-S")
        assert (status, "P-VOLs are at both arrays" in error) == (228, True)
        assert (await pairctl(a, "pairsplit", "-d", "data1", "-S"))[0] == 0
        status, _, error = await pairctl(a, "paircreate", "-g", "g", "-vl")
        assert (status, error) == (
            228,
            "pairctl: create data0: 228 invalid state: the volume is already paired;"
            " no pair of the group was changed\n",
        )
        assert (await pairctl(a, "pairsplit", "-g", "g", "-S"))[0] == 0
        assert (await pairctl(a, "volchk", "-g", "g", "-ss"))[0] == 11


async def test_verify(tmp_path: Path) -> None:
    async with pair_of_arrays(tmp_path, PairSpec("data0", group="g"), PairSpec("data1", group="g")) as arrays:
        a, b = arrays.a.port, arrays.b.port
        await arrays.create(0)
        status, _, error = await pairctl(a, "verify", "-g", "g")
        assert (status, error.split(": ", 2)[1:]) == (
            228, ["verify data1", "228 invalid state: not a P-VOL in PAIR; no pair of the group is being compared\n"],
        )  # fmt: skip
        assert await pairctl(a, "verify", "data0", "--wait") == (0, "data0: 4.0 MiB compared, equal\n", "")
        with (arrays.b.state / "data0.vol").open("r+b") as medium:  # behind the array's back, as a bad disk would
            medium.seek(1 << 20)
            medium.write(b"rot")
        status, output, _ = await pairctl(a, "verify", "data0", "--wait")
        assert (status, output.split(": copied by")[0]) == (
            225, "data0: 4.0 MiB compared, 64.0 KiB in regions that differ",
        )  # fmt: skip
        _, output, _ = await pairctl(a, "display", "data0", "--json")
        (pair,) = json.loads(output)
        assert (pair["differing_bytes"], pair["copy_rate"], pair["seconds_left"]) == (64 << 10, None, None)
        assert pair["verify"] == {
            "state": "ended", "compared_bytes": 4 << 20, "differing_bytes": 64 << 10, "busy_bytes": 0,
        }  # fmt: skip
        status, _, error = await pairctl(b, "verify", "data0")
        assert (status, error) == (
            228,
            "pairctl: verify data0: 228 invalid state: the own volume is the S-VOL; ask the P-VOL's array, 30095\n",
        )
        assert [(await pairctl(a, verb, "data0"))[0] for verb in ("split", "resync")] == [0, 0]
        await arrays.a.until(0, PairState.PAIR)
        assert arrays.equal()
        assert (await pairctl(a, "verify", "data0", "--wait"))[0] == 0


async def test_rate_and_progress(tmp_path: Path) -> None:
    slow = PairSpec("data0", size="16MiB", copy_rate="64KiB")
    async with pair_of_arrays(tmp_path, slow) as arrays:
        a, b = arrays.a.port, arrays.b.port
        for lba in range(0, 32768, 128):
            await arrays.a.write(0, lba, b"data" * 128)
        await arrays.a.control(0, PairOut.CREATE)

        async def moving() -> bool:
            return (await arrays.a.status(0)).bytes_per_second > 0

        await eventually(moving, within=15, what="a copy with a speed")
        _, output, _ = await pairctl(a, "display", "-v", "data0")
        assert "data0: copy_rate 64.0 KiB/s; " in output and " to copy, " in output and " s to go\n" in output
        assert await pairctl(a, "rate", "data0", "unlimited") == (0, "", "")
        await arrays.a.until(0, PairState.PAIR)  # it would have taken four minutes
        assert await pairctl(b, "rate", "data0", "2MiB") == (
            0, "", "pairctl: rate data0: this array drives no copies of it before a swap: ask the P-VOL's\n",
        )  # fmt: skip
        assert (await arrays.b.status(0)).copy_rate == 2 << 20
        assert await pairctl(a, "rate", "data0", "4MiB") == (0, "", "")
        assert (await pairctl(a, "verify", "data0"))[0] == 0
        status, output, _ = await pairctl(a, "watch", "data0", "--interval", "0.2")
        assert status == 0 and "verify running: " in output.splitlines()[0] and "verify" not in output.splitlines()[-1]
        arrays.a.config.write_text(arrays.a.config.read_text().replace('"64KiB"', '"1MiB"'))
        assert arrays.a.process is not None
        os.kill(arrays.a.process.pid, signal.SIGHUP)

        async def reread() -> bool:
            return (await arrays.a.status(0)).copy_rate == 1 << 20

        await eventually(reread, within=10, what="the copy_rate of the configuration")


async def test_takeover(tmp_path: Path) -> None:
    async with pair_of_arrays(tmp_path, PairSpec("data0"), PairSpec("data1")) as arrays:
        a, b = arrays.a.port, arrays.b.port
        await arrays.create()
        assert (await pairctl(a, "takeover", "data0"))[0] == 0
        assert (await pairctl(b, "horctakeover", "data0"))[0] == 1
        await arrays.a.until(0, PairState.PAIR)
        assert (await pairctl(b, "volchk", "data0", "-ss"))[0] == 23
        await arrays.cut()
        await arrays.a.until(0, PairState.PSUE)
        status, _, error = await pairctl(a, "takeover", "data0")
        assert (status, "takeover --force" in error) == (225, True)
        status, output, _ = await pairctl(a, "takeover", "data0", "--force", "--yes-i-know", "data0", "--json")
        (pair,) = json.loads(output)
        assert (status, pair["exit_status"], pair["role"], pair["peer_outdated"]) == (2, 2, "P-VOL", True)
        assert (await arrays.a.write(0, 100, b"a" * 512)).status == 0
        assert (await arrays.b.write(0, 900, b"b" * 512)).status == 0
        await arrays.mend()

        async def outdated() -> bool:
            return bool((await arrays.b.status(0)).flags & StatusFlag.OUTDATED)

        await eventually(outdated, what="array B hears of the takeover")
        _, output, _ = await pairctl(b, "display", "data0")
        assert "data0: outdated: array 30095 was promoted" in output and "data0: SPLIT BRAIN" in output
        status, _, error = await pairctl(b, "takeover", "data0")
        assert (status, "name the good side" in error) == (225, True)
        assert (await pairctl(a, "resync", "data0", "--good", "p"))[0] == 0
        await arrays.b.until(0, PairState.PAIR)
        assert arrays.b.file("data0")[100 * 512 : 101 * 512] == b"a" * 512
        assert arrays.b.file("data0")[900 * 512 : 901 * 512] == bytes(512)


async def test_a_group_is_ordered_and_taken_over_as_one(tmp_path: Path) -> None:
    pairs = (PairSpec("data0", group="g"), PairSpec("data1", group="g"), PairSpec("other"))
    async with pair_of_arrays(tmp_path, *pairs) as arrays:
        a, b = arrays.a.port, arrays.b.port
        assert (await pairctl(a, "create", "-g", "g"))[0] == 0
        for lun in (0, 1):
            await arrays.b.until(lun, PairState.PAIR)
        assert (await pairctl(b, "takeover", "-g", "g"))[0] == 1
        assert arrays.a.log.count("group g: decided as one: data0, data1") == 2, "created; out of PAIR, without a split"
        for lun in (0, 1):
            assert (await arrays.b.until(lun, PairState.PAIR)).role is PairRole.P_VOL
        assert (await pairctl(a, "split", "-g", "g", "-rw"))[0] == 0
        assert (await pairctl(a, "resync", "data0", "-swaps"))[0] == 0
        assert (await pairctl(b, "volchk", "-g", "g"))[0] == 236
        await arrays.a.until(0, PairState.PAIR)
        assert (await pairctl(b, "resync", "-g", "g")) == (0, "", ""), "data0 is there already"
        await arrays.b.until(1, PairState.PAIR)
        status, _, error = await pairctl(b, "split", "-g", "g")
        assert (status, error) == (
            228,
            "pairctl: split g: 228 invalid state: the group's P-VOLs are at both arrays: change its pairs one by one;"
            " no pair of the group was changed\n",
        )
        assert (await pairctl(b, "takeover", "-g", "g"))[0] == 1
        await arrays.b.until(0, PairState.PAIR)
        await arrays.cut()
        status, output, _ = await pairctl(a, "takeover", "-g", "g", "--force", "--yes-i-know", "g", "--json")
        assert (status, [pair["exit_status"] for pair in json.loads(output)]) == (2, [2, 2])
        assert [pair["role"] for pair in json.loads(output)] == ["P-VOL", "P-VOL"]
        await arrays.mend()
        assert (await pairctl(b, "volchk", "-g", "g", "-ss"))[0] == 35
        assert (await pairctl(a, "resync", "-g", "g", "--good", "p"))[0] == 0
        for lun in (0, 1):
            await arrays.b.until(lun, PairState.PAIR)


async def test_watch_until_ctrl_c_and_a_link_by_the_name_of_a_verb(tmp_path: Path) -> None:
    async with pair_of_arrays(tmp_path, PairSpec("data0")) as arrays:
        url = f"iscsi://127.0.0.1:{arrays.a.port}"
        link = tmp_path / "pairvolchk"
        link.symlink_to(ROOT / "initiator_shim" / "pairctl.py")
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(link), "-a", url, "data0", "-ss", env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, _ = await process.communicate()
        assert (process.returncode, output) == (11, b"pairvolchk : data0 : Volstat is SMPL.\n")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "initiator_shim.pairctl", "-a", url, "watch", "--follow", "--json",
            "--interval", "0.1", cwd=ROOT, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        async with asyncio.timeout(30):
            assert json.loads(await process.stdout.readline())["state"] == "SMPL"
            await arrays.create()
            state = ""
            while state != "PAIR":
                state = json.loads(await process.stdout.readline())["state"]
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 130


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
