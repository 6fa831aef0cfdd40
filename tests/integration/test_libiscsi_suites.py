"""libiscsi's own test suites (``iscsi-test-cu``) against a zero-configuration array.

The tool counts a test as passed that found a command missing: a line with SKIPPED is a failure here.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from tests.integration.array_process import ArrayProcess, running_array

pytestmark = pytest.mark.asyncio(loop_scope="module")

SUITES = {  # and how many tests each must have run: a suite that the tool does not find is no success
    "TestUnitReady": 1,
    "Inquiry": 7,
    "Read6": 2,
    "Read10": 6,
    "Read12": 5,
    "Read16": 5,
    "Write10": 6,
    "Write12": 5,
    "Write16": 5,
    "ReadCapacity10": 1,
    "ReadCapacity16": 4,
    "Reserve6": 7,
    "Mandatory": 1,
    "iSCSIResiduals": 10,
    "iSCSIcmdsn": 2,
    "iSCSITMF": 2,
}
SLOW = ("Reserve6", "iSCSIcmdsn")  # the tool waits for seconds
SUITE_SECONDS = 60.0
_SUMMARY = re.compile(r"^ +(tests|asserts) +(\d+) +(\d+) +(\d+) +(\d+)", re.MULTILINE)
_MISSING = re.compile(r"\[SKIPPED\][^\n]*", re.IGNORECASE)


class SuiteFailed(AssertionError):
    """A suite did not pass, or passed over something."""


def check_output(output: str, least: int) -> None:
    """Raises SuiteFailed unless all of at least so many tests ran and passed, with nothing skipped."""
    skipped = _MISSING.findall(output)
    if skipped:
        raise SuiteFailed(f"skipped: {skipped}")
    counts = {what: tuple(map(int, numbers)) for what, *numbers in _SUMMARY.findall(output)}
    if set(counts) != {"tests", "asserts"}:
        raise SuiteFailed(f"no summary in {output!r}")
    for total, ran, passed, failed in counts.values():
        if not (total == ran == passed and failed == 0):
            raise SuiteFailed(output)
    if counts["tests"][1] < least:
        raise SuiteFailed(f"{counts['tests'][1]} tests, at least {least} were expected")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def array(
    tmp_path_factory: pytest.TempPathFactory, require_tool: Callable[[str], str]
) -> AsyncIterator[ArrayProcess]:
    require_tool("iscsi-test-cu")
    words = ("--portal", "127.0.0.1:0", "--volume", "256MiB")
    async with running_array(tmp_path_factory.mktemp("array"), *words) as process:
        yield process


async def run_suite(tool: str, suite: str, url: str) -> tuple[int, str]:
    """Exit status and output."""
    process = await asyncio.create_subprocess_exec(
        tool, "-d", "-t", f"ALL.{suite}", url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(SUITE_SECONDS):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")


@pytest.mark.parametrize(
    "suite", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in SUITES]
)
async def test_suite(suite: str, array: ArrayProcess, require_tool: Callable[[str], str]) -> None:
    status, output = await run_suite(require_tool("iscsi-test-cu"), suite, array.urls[0])
    assert status == 0, output
    check_output(output, SUITES[suite])
    assert "Traceback" not in array.log and "internal error" not in array.log


PASSED = """\
  Test: Simple ...passed
Run Summary:    Type  Total    Ran Passed Failed Inactive
              suites      1      1    n/a      0        0
               tests      2      2      2      0        0
             asserts     12     12     12      0      n/a
"""


@pytest.mark.parametrize(
    "output",
    [
        PASSED + "    [SKIPPED] PERSISTENT RESERVE IN is not implemented.\n",
        PASSED.replace("2      2      2      0", "2      2      1      1"),
        PASSED.replace("12     12     12      0", "12     12     11      1"),
        PASSED.replace("2      2      2      0", "2      1      1      0"),
        PASSED.replace("2      2      2      0", "1      1      1      0"),
        "",
    ],
    ids=["skipped", "test failed", "assertion failed", "not run", "too few", "nothing"],
)
async def test_what_counts_as_failed(output: str) -> None:
    check_output(PASSED, 2)
    with pytest.raises(SuiteFailed):
        check_output(output, 2)
