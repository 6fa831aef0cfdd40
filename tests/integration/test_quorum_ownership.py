"""Who owns a quorum volume, as the array sees it: RESERVE and claims of two hosts, without a shim."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from initiator_shim.initiator_transport import IscsiSession
from initiator_shim.pair_client import PairRefused
from storage_model.nexus import ITNexus
from storage_model.pair_state import PairState, Refusal
from storage_model.spec.pair_cdb import PairOption, PairOut, PairStatus
from tests.eventually import eventually
from tests.integration.pair_of_arrays import (
    BLOCK,
    ArrayUnderTest,
    PairOfArrays,
    PairSpec,
    pair_of_arrays,
    sense_of,
    write_cdb,
)

ISID = bytes.fromhex("00023d0000aa")
CONFLICT = 0x18
RESERVE, RELEASE = bytes([0x16, 0, 0, 0, 0, 0]), bytes([0x17, 0, 0, 0, 0, 0])


@dataclass
class Host:
    """A host's session with its array, and the nexus that it is."""

    array: ArrayUnderTest
    session: IscsiSession
    nexus: ITNexus

    @classmethod
    async def join(cls, array: ArrayUnderTest, name: str) -> "Host":
        name = f"iqn.2026-11.org.pairvol:{name}"
        session = await array.connect(name, ISID)
        await session.execute(0, bytes(6))  # the unit attention of the power on
        return cls(array, session, ITNexus(name, ISID))

    async def command(self, cdb: bytes, data_out: bytes = b"") -> int:
        return (await self.session.execute(0, cdb, data_out)).status

    async def write(self, lba: int = 0) -> int:
        return await self.command(write_cdb(lba, 1), bytes(BLOCK))

    async def claim(self) -> None:
        """114 or 115 of Figure 5, by role."""
        status = await self.array.status(0)
        verb = PairOut.RESYNC if status.role.name == "P_VOL" else PairOut.SWAP_RESYNC
        await self.array.control(0, verb, epoch=status.epoch, claim=self.nexus)


@asynccontextmanager
async def armed_quorum(directory: Path) -> AsyncIterator[tuple[PairOfArrays, Host, Host]]:
    async with pair_of_arrays(directory, PairSpec("quorum", fence="data", quorum=True)) as arrays:
        await arrays.create()
        await arrays.a.control(0, PairOut.SPLIT)
        hosts = await Host.join(arrays.a, "host-a"), await Host.join(arrays.b, "host-b")
        yield arrays, *hosts
        for host in hosts:
            await host.session.logout()


async def until_no_owner(array: ArrayUnderTest) -> PairStatus:
    async def released() -> PairStatus | None:
        status = await array.status(0)
        return None if status.owner else status

    status = await eventually(released, what="no owner")
    assert status is not None
    return status


async def test_only_the_owner_writes_at_both_arrays(tmp_path: Path) -> None:
    async with armed_quorum(tmp_path) as (arrays, host_a, host_b):
        await host_b.claim()
        await arrays.a.until(0, PairState.PAIR)
        assert await host_b.write() == 0
        assert await host_a.write() == CONFLICT
        assert (await arrays.b.write(0, 0, bytes(BLOCK))).status == CONFLICT  # another nexus at the owner's array
        assert arrays.equal()


async def test_owner_repeats_its_claim_without_a_transition(tmp_path: Path) -> None:
    async with armed_quorum(tmp_path) as (arrays, host_a, _):
        await host_a.claim()
        status = await arrays.a.until(0, PairState.PAIR)
        await host_a.claim()
        assert (await arrays.a.status(0)).epoch == status.epoch


async def test_stale_owner_is_refused(tmp_path: Path) -> None:
    async with armed_quorum(tmp_path) as (arrays, host_a, host_b):
        await host_a.claim()
        await arrays.a.until(0, PairState.PAIR)
        await arrays.a.control(0, PairOut.SPLIT)
        await host_b.claim()
        with pytest.raises(PairRefused):
            await host_a.claim()
        assert await host_a.write() == CONFLICT


async def test_operator_may_not_delete_an_owned_quorum_pair_unless_he_insists(tmp_path: Path) -> None:
    async with armed_quorum(tmp_path) as (arrays, host_a, _):
        await host_a.claim()
        await arrays.a.until(0, PairState.PAIR)
        with pytest.raises(PairRefused) as refused:
            await arrays.b.control(0, PairOut.DELETE)
        assert refused.value.refusal is Refusal.OWNED
        await arrays.b.control(0, PairOut.DELETE, PairOption.FORCE)
        assert (await arrays.a.status(0)).state is PairState.SMPL


async def test_operator_may_not_swap_an_owned_quorum_volume(tmp_path: Path) -> None:
    async with armed_quorum(tmp_path) as (arrays, host_a, _):
        await host_a.claim()
        await arrays.a.until(0, PairState.PAIR)
        await arrays.a.control(0, PairOut.SPLIT)
        with pytest.raises(PairRefused) as refused:
            await arrays.b.control(0, PairOut.SWAP_RESYNC)
        assert refused.value.refusal is Refusal.OWNED


@pytest.mark.parametrize("armed", [True, False])
async def test_release_by_the_owner_lets_the_other_site_win(tmp_path: Path, armed: bool) -> None:
    """Also out of PAIR, where Figure 4 would refuse everybody for ever."""
    async with armed_quorum(tmp_path) as (arrays, host_a, host_b):
        assert await host_a.command(RESERVE) == 0
        await host_a.claim()
        await arrays.a.until(0, PairState.PAIR)
        if armed:
            await arrays.a.control(0, PairOut.SPLIT)
        assert await host_a.command(RELEASE) == 0
        assert (await until_no_owner(arrays.b)).state is PairState.PSUS
        await host_b.claim()
        assert (await arrays.a.until(0, PairState.PAIR)).owner == host_b.nexus


async def test_release_by_another_nexus_changes_nothing(tmp_path: Path) -> None:
    async with armed_quorum(tmp_path) as (arrays, host_a, host_b):
        await host_a.claim()
        assert await host_b.command(RELEASE) == 0
        assert (await arrays.b.status(0)).owner == host_a.nexus


async def test_without_the_link_the_owner_keeps_it_and_nobody_else_wins(tmp_path: Path) -> None:
    async with armed_quorum(tmp_path) as (arrays, host_a, host_b):
        await host_a.claim()
        await arrays.a.until(0, PairState.PAIR)
        await arrays.b.control(0, PairOut.SPLIT)
        await arrays.cut()
        with pytest.raises(PairRefused) as refused:
            await host_b.claim()
        assert refused.value.refusal is Refusal.PEER_UNREACHABLE
        await host_a.claim()  # no exception: the owner keeps it
        assert await host_a.write() == 0
        await arrays.mend()
        # What the owner was told while the link was down is decided now: the pair is not armed any more.
        for array in (arrays.a, arrays.b):
            assert (await array.until(0, PairState.PAIR)).owner == host_a.nexus
        with pytest.raises(PairRefused):
            await host_b.claim()
        assert arrays.equal()


async def test_without_the_link_nobody_new_wins(tmp_path: Path) -> None:
    async with armed_quorum(tmp_path) as (arrays, host_a, host_b):
        await arrays.cut()
        for host in (host_a, host_b):
            with pytest.raises(PairRefused) as refused:
                await host.claim()
            assert refused.value.refusal is Refusal.PEER_UNREACHABLE
        await arrays.mend()
        assert (await arrays.a.status(0)).owner is None
        await host_b.claim()


@pytest.mark.parametrize("killed", ["a", "b"])
async def test_decided_owner_survives_kill_9(tmp_path: Path, killed: str) -> None:
    async with armed_quorum(tmp_path) as (arrays, host_a, _):
        await host_a.claim()
        status = await arrays.a.until(0, PairState.PAIR)
        array = arrays.a if killed == "a" else arrays.b
        await array.kill()
        await array.start()
        await arrays.linked()
        after = await array.status(0)
        assert (after.owner, after.epoch, after.state) == (host_a.nexus, status.epoch, PairState.PSUE)


async def test_lu_reset_clears_the_reservation_and_moves_no_ownership(tmp_path: Path) -> None:
    async with armed_quorum(tmp_path) as (arrays, host_a, host_b):
        assert await host_a.command(RESERVE) == 0
        await host_a.claim()
        await arrays.a.until(0, PairState.PAIR)
        assert await host_b.session.task_management(5, 0) == 0
        assert await arrays.a.session.task_management(5, 0) == 0  # type: ignore[union-attr]
        assert sense_of(await host_a.session.execute(0, bytes(6)))[0] == 6
        other = await Host.join(arrays.a, "host-a2")
        assert await other.command(RESERVE) == 0  # free again, for SCSI-2
        with pytest.raises(PairRefused):
            await other.claim()
        assert await other.write() == CONFLICT
        assert (await arrays.a.status(0)).owner == host_a.nexus
        await other.session.logout()


async def test_withdraw_gives_back_the_losers_reservation(tmp_path: Path) -> None:
    async with armed_quorum(tmp_path) as (arrays, host_a, host_b):
        assert await host_b.command(RESERVE) == 0
        await host_a.claim()
        await arrays.b.control(0, PairOut.WITHDRAW, claim=host_b.nexus)
        other = await Host.join(arrays.b, "host-b2")
        assert await other.command(RESERVE) == 0
        assert (await arrays.b.status(0)).owner == host_a.nexus
        await other.session.logout()


async def test_claim_holds_the_unit_although_an_older_withdraw_came_after_its_reserve(tmp_path: Path) -> None:
    """Told GOOD, the host must find the unit reserved: so the explorer's scope "failure" found it lost."""
    async with armed_quorum(tmp_path) as (arrays, host_a, _):
        other = await Host.join(arrays.a, "host-a2")
        assert await host_a.command(RESERVE) == 0
        await arrays.a.control(0, PairOut.WITHDRAW, claim=host_a.nexus)  # of a RESERVE before this one
        await host_a.claim()
        assert await other.command(RESERVE) == CONFLICT
        await other.session.logout()


async def test_claim_is_refused_while_another_nexus_holds_the_unit(tmp_path: Path) -> None:
    async with armed_quorum(tmp_path) as (arrays, host_a, _):
        other = await Host.join(arrays.a, "host-a2")
        assert await other.command(RESERVE) == 0
        with pytest.raises(PairRefused) as refused:
            await host_a.claim()
        assert refused.value.status == CONFLICT
        assert (await arrays.a.status(0)).owner is None
        await other.session.logout()
