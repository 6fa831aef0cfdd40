"""``scripts/fuzz`` as a user runs it: a short campaign, an interrupted one, and one against an array that is broken."""

import asyncio
import re
from functools import partial

import pytest

from scripts.fuzzing.live_array import LiveArray
from scripts.fuzzing.memory_trend import trend
from tests.integration.script_run import run_script

MEBIBYTE = 1 << 20

run_fuzz = partial(run_script, "scripts.fuzzing", seconds=60.0)


async def test_a_short_campaign() -> None:
    status, output = await run_fuzz("--minutes", "0.1", "--seed", "1", "--connections", "3")
    assert status == 0, output
    assert output.startswith("seed 1\n")
    assert re.search(r"^findings +none$", output, re.MULTILINE)
    commands = re.search(r"commands (\d+)", output)
    assert commands is not None and int(commands[1]) > 20
    assert "Login Response 0000h" in output and "status 00h" in output and "sense 5h" in output


async def test_interrupted() -> None:
    """The summary of what was done so far, and the status that a shell gives to an interrupted command."""
    status, output = await run_fuzz("--minutes", "5", "--seed", "2", "--progress", "1", interrupt_after="episodes,")
    assert status == 130, output
    assert re.search(r"^findings +none$", output, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--minutes", "0"), "--minutes"),
        (("--connections", "0"), "--connections"),
        (("--replay", "nothing"), "KIND:WORKER:NUMBER"),
    ],
)
async def test_wrong_arguments(words: tuple[str, ...], told: str) -> None:
    status, output = await run_fuzz(*words)
    assert status == 2 and told in output


async def test_one_episode_again() -> None:
    status, output = await run_fuzz("--seed", "1", "--replay", "stream:0:1")
    assert status == 0, output
    assert re.search(r"^episodes +stream 1", output, re.MULTILINE)


@pytest.mark.parametrize(
    ("samples", "flat"),
    [
        ([40] * 100, True),
        ([10] * 20 + [40] * 80, True),  # the warm-up does not count
        ([40 + index % 5 for index in range(100)], True),
        ([40] * 60 + [55] * 40, True),  # a step, as allocators make it
        ([40 + index // 2 for index in range(100)], False),
        ([40] * 60 + [70] * 40, False),
    ],
)
def test_the_verdict_on_memory(samples: list[int], flat: bool) -> None:
    """Samples in MiB."""
    verdict = trend([sample * MEBIBYTE for sample in samples])
    assert verdict is not None and verdict.flat is flat


def test_too_few_samples_give_no_verdict() -> None:
    assert trend([MEBIBYTE] * 10) is None


async def test_lines_of_the_log_that_no_peer_may_bring_about() -> None:
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()
    array = LiveArray(process)
    good = "2026-11-23 02:00:00,123 WARNING pairvol.iscsi: 127.0.0.1:5555 (x): connection dropped: TARGET COLD RESET"
    array._log_line(good)
    assert array.bad_lines == [] and array.drop_reasons == {5555: "TARGET COLD RESET"}
    bad = ["2026-11-23 02:00:00,123 ERROR pairvol.iscsi: x: internal error", "Traceback (most recent call last):"]
    for line in bad:
        array._log_line(line)
    assert array.bad_lines == bad
