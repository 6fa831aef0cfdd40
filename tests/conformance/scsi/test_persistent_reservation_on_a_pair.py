"""A unit of a pair has no persistent reservations: another host could win the same one at the other half."""

import pytest

from storage_model.pair_state import PairRole
from storage_model.spec.scsi_task import ScsiStatus
from tests.conformance.scsi.bench import make_bench
from tests.conformance.scsi.persistent_reserve import out_cdb


class Pair:
    role = PairRole.SMPL

    def refuse(self, nexus, *, writes):
        return ScsiStatus.GOOD


@pytest.fixture
def paired():
    return make_bench(pair=Pair())


@pytest.mark.parametrize("action", range(8))
async def test_persistent_reserve_out_is_unknown(paired, action):
    sense = await paired.refused(out_cdb(action, 24), bytes(24))
    assert (sense.sense_key, sense.asc_ascq, sense.field_pointer) == (5, 0x2000, 0)


async def test_it_is_not_reported(paired, bench):
    """SPC-4 6.34; and REPORT CAPABILITIES has an empty mask of types."""

    async def codes(of):
        data = await of.good("a3 0c 00 00 0000 00 00 ff ff")
        return {data[at] for at in range(4, len(data), 8)}

    assert await codes(bench) - await codes(paired) == {0x5F}
    assert (await paired.good("a3 0c 02 5f 0000 00 00 ff ff"))[:2] == b"\x00\x01"
    assert (await paired.good("5e 02 00 00 00 00 00 00 ff"))[2:6].hex(" ") == "1c c0 00 00"
    assert await paired.good("5e 00 00 00 00 00 00 00 ff") == bytes(8)
