"""The simulator in small: seeds pass, are the same wherever they run, and each known-bad variant is caught."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import target.array
from scripts.simulation.groups import DATA, LOG, Groups
from scripts.simulation.journal import Journal
from scripts.simulation.ledger import Ledger
from scripts.simulation.variants import VARIANTS, variant
from scripts.simulation.world import Result, run_seed
from storage_model.pair import PairEpoch, PairRecord
from storage_model.pair_state import PairState

ROOT = Path(__file__).parents[2]

CAUGHT_WITHIN = 60
"""Seeds from the stated one on: changed code makes other runs out of the same seeds."""

CAUGHT_BY = {
    "bitmap-cleared-on-send": 14,
    "s-vol-acknowledges-early": 0,
    "good-before-vote": 0,
    "vote-told-before-durable": 5,
    "swap-discards": 5,
    "marks-not-durable": 8,
    "marks-forgotten": 6,
    "suspended-writes-unmarked": 2,
    "gate-does-not-wait": 27,
    "resync-succeeds-in-pair": 5,
    "flush-of-one-copy": 2,
    "stale-read-after-swap": 82,
    "entry-told-before-vote": 0,
    "abort-not-awaited": 28,
    "table-not-durable": 0,
    "doubt-forgotten": 4,
    "outdated-half-is-good": 2,
    "takeover-without-outdated": 2,
    "incomplete-half-taken-over": 0,
    "fault-suspends-one-of-a-group": 0,
    "group-saved-one-by-one": 0,
    "quorum-open-to-all": 222,
}


@pytest.mark.parametrize("seed", range(112, 119))
def test_seed_passes(seed: int) -> None:
    result = run_seed(seed)
    assert not result.violations
    assert result.events > 1000 and result.checked > 100 and result.faults


@pytest.mark.parametrize("name", VARIANTS)
def test_known_bad_variant_is_caught(name: str) -> None:
    results: list[Result] = []
    with variant(name):
        for seed in range(CAUGHT_BY[name], CAUGHT_BY[name] + CAUGHT_WITHIN):
            results.append(run_seed(seed))
            if results[-1].violations:
                return
    pytest.fail(f"not caught by {len(results)} seeds")


def test_image_of_two_moments_is_found() -> None:
    """Of the suspended S-VOLs; known-bad variants are found before that, as they do not suspend in one transaction."""
    journal, serials, pairs = Journal(), ("1", "2"), (DATA, LOG)
    ledger, numbers = Ledger(journal, serials, pairs), {LOG: 10, DATA: 11}
    groups = Groups(journal, ledger, serials, pairs, lambda serial, pair, lba: numbers[pair], lambda pair, serial: True)
    mirroring = PairRecord(PairEpoch(1, "1", PairState.COPY), PairState.PAIR, equal=True)
    for pair in pairs:
        ledger.saved("1", pair, PairRecord(accepted=mirroring.decided))
        ledger.saved("2", pair, mirroring)
        ledger.saved("1", pair, mirroring)
    for number, step in ((10, 1), (11, 1), (12, 2)):
        groups.step(number, step)
    groups.done(0, 1, "1", groups.mirroring("1"))
    suspended = replace(mirroring, state=PairState.PSUE)
    groups.saved("1", dict.fromkeys(pairs, mirroring), dict.fromkeys(pairs, suspended))
    groups.check()
    assert groups.images == 1 and not journal.violations
    numbers[DATA] = 12  # the data of a step that the log does not have
    groups.check()
    assert "no image of one moment" in journal.violations[0]


def digest_elsewhere(seed: int, hash_seed: int) -> str:
    command = [sys.executable, "-m", "scripts.simulation", "--seed", str(seed)]
    environment = os.environ | {"PYTHONHASHSEED": str(hash_seed)}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True)
    last = run.stdout.splitlines()[-1]
    assert last.startswith("digest ")
    return last.removeprefix("digest ")


def test_seed_is_the_same_run_in_every_process() -> None:
    one, other = (digest_elsewhere(120, hash_seed) for hash_seed in (1, 2))
    assert one == other
    assert run_seed(120, verbose=True, digest=True).digest == one


def test_seed_is_the_same_run_whatever_ran_before() -> None:
    digests = [run_seed(seed, digest=True).digest for seed in (110, 111, 110)]
    assert digests[0] == digests[2] != digests[1]


def test_run_leaves_its_surroundings_as_they_were() -> None:
    before = time.time, time.monotonic, vars(target.array)["BitmapFile"]
    _ = run_seed(107)
    assert before == (time.time, time.monotonic, vars(target.array)["BitmapFile"])
