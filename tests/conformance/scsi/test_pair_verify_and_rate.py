"""PAIR CONTROL OUT, VERIFY and SET COPY RATE: the fields of their CDBs, and whom they reach."""

import pytest

from storage_model.pair import PairRefused
from storage_model.pair_state import PairRole, Refusal
from storage_model.spec.scsi_task import ScsiStatus
from tests.conformance.scsi.bench import make_bench

VERIFY = "c1 07 00 00 00000000 0000 00000000 0000"
RATE = "c1 08 00 00 00000000 0000 00000008 0000"


class Pair:
    role = PairRole.P_VOL

    def __init__(self):
        self.refusal = None
        self.verified = 0
        self.rates = []

    def refuse(self, nexus, *, writes):
        return ScsiStatus.GOOD

    def verify(self):
        if self.refusal is not None:
            raise PairRefused(self.refusal)
        self.verified += 1

    def set_copy_rate(self, bytes_per_second):
        self.rates.append(bytes_per_second)


@pytest.fixture
def pair():
    return Pair()


@pytest.fixture
def paired(pair):
    return make_bench(pair=pair)


async def test_they_reach_the_pair(paired, pair):
    await paired.good(VERIFY)
    await paired.good(RATE, (20 << 20).to_bytes(8))
    await paired.good(RATE, bytes(8))
    assert (pair.verified, pair.rates) == (1, [20 << 20, 0])


@pytest.mark.parametrize("refusal", [Refusal.NOT_PAIRED, Refusal.IS_S_VOL, Refusal.BUSY])
async def test_a_refusal_has_its_sense(paired, pair, refusal):
    pair.refusal = refusal
    sense = await paired.refused(VERIFY)
    assert (sense.sense_key, sense.asc_ascq) == (refusal.sense_key, refusal.asc_ascq)


@pytest.mark.parametrize(("index", "value"), [(2, 1), (3, 1), (7, 9), (13, 8)])
async def test_no_other_field_of_verify_has_a_meaning(paired, pair, index, value):
    cdb = bytearray.fromhex(VERIFY)
    cdb[index] = value
    sense = await paired.refused(cdb.hex(" "), bytes(cdb[13]))
    assert (sense.sense_key, sense.asc_ascq) == (5, 0x2400)
    assert sense.field_pointer == {2: 2, 3: 3, 7: 4, 13: 10}[index]
    assert pair.verified == 0


@pytest.mark.parametrize(("rate", "asc_ascq"), [(b"", 0x1A00), (bytes(7), 0x1A00), ((1).to_bytes(8), 0x2600)])
async def test_a_rate_that_is_none(paired, pair, rate, asc_ascq):
    sense = await paired.refused(RATE[:-7] + f"{len(rate):02x} 0000", rate)
    assert (sense.sense_key, sense.asc_ascq) == (5, asc_ascq)
    assert pair.rates == []


@pytest.mark.parametrize(("cdb", "data"), [(VERIFY, b""), (RATE, bytes(8))])
async def test_without_a_pair(bench, cdb, data):
    sense = await bench.refused(cdb, data)
    assert (sense.sense_key, sense.asc_ascq) == (5, 0x800A)
