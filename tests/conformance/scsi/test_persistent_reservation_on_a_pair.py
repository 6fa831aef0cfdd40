"""A unit of a pair leaves persistent reservations to the pair, which decides them at both arrays (SPC-4 5.13)."""

from dataclasses import replace

import pytest

from storage_model.errors import CheckCondition
from storage_model.pair import PairRefused
from storage_model.pair_state import PairRole, Refusal
from storage_model.persistent_reservation import PersistentReservation, Registration, ReservationType
from storage_model.spec.scsi_persistent_reservation import BasicParameters
from storage_model.spec.scsi_task import ScsiStatus
from storage_model.volume import MediumFailure
from tests.conformance.scsi.bench import NEXUS_A, NEXUS_B, make_bench
from tests.conformance.scsi.persistent_reserve import EA, KEY_A, REGISTER, RESERVE, out_cdb

IN = "5e 00 00 00 00 00 00 00 ff"


class Pair:
    """Answers what a test says, and keeps the orders."""

    role = PairRole.P_VOL

    def __init__(self):
        self.answer = True
        self.unsettled = None
        self.orders = []

    def refuse(self, nexus, *, writes):
        return ScsiStatus.GOOD

    async def persistent_reserve_out(self, order, aborted):
        assert not aborted()
        self.orders.append(order)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def reservations_settled(self):
        if self.unsettled is not None:
            raise self.unsettled


@pytest.fixture
def pair():
    return Pair()


@pytest.fixture
def paired(pair):
    return make_bench(pair=pair)


async def test_the_order_goes_to_the_pair_as_it_came(paired, pair):
    data = BasicParameters(0, KEY_A).encode()
    await paired.good(out_cdb(REGISTER, 24, EA), data)
    (order,) = pair.orders
    assert (order.nexus, order.tag, order.service_action, order.scope_and_type) == (NEXUS_A, paired.tag, REGISTER, EA)
    assert order.parameter_list == data and order.target_ports == (1,)


async def test_a_conflict_of_the_pair(paired, pair):
    pair.answer = False
    assert (await paired.run(out_cdb(RESERVE, 24), bytes(24))).status is ScsiStatus.RESERVATION_CONFLICT


@pytest.mark.parametrize("refusal", [Refusal.PEER_UNREACHABLE, Refusal.IN_DOUBT, Refusal.NO_VOTE, Refusal.NOT_PAIRED])
async def test_what_the_pair_cannot_decide_says_why(paired, pair, refusal):
    pair.answer = PairRefused(refusal)
    sense = await paired.refused(out_cdb(RESERVE, 24), bytes(24))
    assert (sense.sense_key, sense.asc_ascq) == (refusal.sense_key, refusal.asc_ascq)


async def test_a_fault_of_the_list_and_of_the_medium(paired, pair):
    pair.answer = CheckCondition(5, 0x2600, field_pointer=8, in_parameter_list=True)
    sense = await paired.refused(out_cdb(RESERVE, 24), bytes(24))
    assert (sense.asc_ascq, sense.field_pointer, sense.in_parameter_list) == (0x2600, 8, True)
    pair.answer = MediumFailure("no space")
    assert (await paired.refused(out_cdb(RESERVE, 24), bytes(24))).asc_ascq == 0x4400
    assert (await paired.refused(out_cdb(RESERVE, 25), bytes(24))).asc_ascq == 0x1A00, "the pair is not asked"


async def test_keys_in_doubt_are_not_told(paired, pair):
    pair.unsettled = PairRefused(Refusal.IN_DOUBT)
    sense = await paired.refused(IN)
    assert (sense.sense_key, sense.asc_ascq) == (2, 0x8011)


async def test_while_a_change_is_in_doubt_only_who_is_let_in_by_both_tables_is(paired):
    """Of the old holder and the new one, neither is; whoever may read under both, may."""
    states = []
    for nexus in (NEXUS_A, NEXUS_B):
        registered = PersistentReservation({nexus: Registration(KEY_A)})
        states.append(replace(registered, reservation_type=ReservationType.WRITE_EXCLUSIVE, holder=nexus))
    paired.lu.reservation.put_into_force(*states)
    for nexus in (NEXUS_A, NEXUS_B):
        assert (await paired.run("2a 00 00000000 00 0001", bytes(512), nexus)).status == 0x18
        assert (await paired.run("28 00 00000000 00 0001", b"", nexus)).status == 0
        assert (await paired.run("16", b"", nexus)).status == 0x18
        assert (await paired.run("17", b"", nexus)).status == 0x18
    paired.lu.reservation.put_into_force(states[0])
    assert (await paired.run("2a 00 00000000 00 0001", bytes(512), NEXUS_A)).status == 0


async def test_it_is_reported_and_survives_a_loss_of_power(paired):
    """SPC-4 6.15.4: PTPL_C is 1 without a state directory of the unit, as both arrays keep the table."""
    assert (await paired.good("a3 0c 02 5f 0000 00 00 ff ff"))[:2] == b"\x00\x03"
    assert (await paired.good("5e 02 00 00 00 00 00 00 ff"))[2:6].hex(" ") == "1d c0 ea 01"
    assert await paired.good(IN) == bytes(8)
