"""The units that the tests of commands drive, as fixtures."""

import pytest

from tests.conformance.scsi.bench import Bench, SlowVolume, make_bench
from tests.conformance.scsi.persistent_reserve import Reservations


@pytest.fixture
def slow_volume() -> SlowVolume:
    return SlowVolume()


@pytest.fixture
def slow_bench(slow_volume: SlowVolume) -> Bench:
    return make_bench(slow_volume)


@pytest.fixture
def bench() -> Bench:
    return make_bench()


@pytest.fixture
def removable_bench() -> Bench:
    return make_bench(removable=True)


@pytest.fixture
def write_protected_bench() -> Bench:
    return make_bench(write_protected=True)


@pytest.fixture
def full_bench() -> Bench:
    return make_bench(thin=False)


@pytest.fixture
def physical_bench() -> Bench:
    return make_bench(physical_block_length=4096)


@pytest.fixture
def pr(bench: Bench) -> Reservations:
    return Reservations(bench)
