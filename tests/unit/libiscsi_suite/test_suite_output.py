"""What counts as passed, skipped and failed in the output of ``iscsi-test-cu -V``."""

import pytest

from scripts.libiscsi_suite.suite_output import Outcome, Result, better_known, parse_list, parse_output

OUTPUT = """\
    Send INQUIRY (Expecting SUCCESS) evpd:0 page_code:00 alloc_len:64
Suite: Read10
  Test: Simple ...
    Send READ10 (Expecting SUCCESS) LBA:0 blocks:1
    [OK] READ10 returned SUCCESS NO SENSE(0x00) (null)(0x0000)
passed
  Test: BeyondEol ...
    Send READ10 (Expecting CHECK_CONDITION) LBA:131072 blocks:1
    [FAILED] READ10 successful but should have failed
FAILED
    1. test_read10_beyond_eol.c:55  - CU_ASSERT_EQUAL(_r,0)
    2. test_read10_beyond_eol.c:66  - CU_ASSERT_EQUAL(_r,0)    Send PRIN/READ_KEYS
Suite: NoMedia
  Test: NoMediaSBC ...
    Test that Medium commands fail when medium is ejected on SBC devices
    [SKIPPED] LUN is not removable. Skipping test.
passed    Send PRIN/READ_KEYS
Suite: iSCSITMF
  Test: LUNResetSimpleAsync ...passed    Send PRIN/READ_KEYS
    [FAILED] PRIN command: failed with sense. RESERVATION CONFLICT

Run Summary:    Type  Total    Ran Passed Failed Inactive
              suites      3      3    n/a      0        0
               tests      4      4      3      1        0
             asserts     12     12     10      2      n/a
"""


def parse(output: str) -> tuple[dict[str, Result], str]:
    results, complaint = parse_output(output.splitlines(keepends=True))
    return dict(results), complaint


def test_outcomes() -> None:
    results, complaint = parse(OUTPUT)
    assert complaint == ""
    assert {test: result.outcome for test, result in results.items()} == {
        "Read10.Simple": Outcome.PASSED,
        "Read10.BeyondEol": Outcome.FAILED,
        "NoMedia.NoMediaSBC": Outcome.SKIPPED,
        "iSCSITMF.LUNResetSimpleAsync": Outcome.SKIPPED,
    }
    assert results["Read10.BeyondEol"].reason.startswith("test_read10_beyond_eol.c:55")
    assert results["NoMedia.NoMediaSBC"].reason == "[SKIPPED] LUN is not removable. Skipping test."
    assert results["iSCSITMF.LUNResetSimpleAsync"].reason == "it did nothing"


def test_a_part_that_is_skipped_counts() -> None:
    results, _ = parse(OUTPUT.replace("    [OK] READ10", "    [SKIPPING] No MAXIMUM\n    [OK] READ10"))
    assert results["Read10.Simple"].outcome is Outcome.SKIPPED


def test_the_end_of_the_tool_in_the_middle_of_a_test() -> None:
    results, complaint = parse(OUTPUT.partition("passed")[0])
    assert results == {"Read10.Simple": Result(Outcome.FAILED, "the tool did not come to its end")}
    assert "Read10.Simple" in complaint


@pytest.mark.parametrize(
    "output",
    [
        OUTPUT.replace("4      4      3      1", "4      4      4      0"),
        OUTPUT.replace("4      4      3      1", "5      4      3      1"),
        OUTPUT.replace("4      4      3      1", "5      5      4      1"),
        OUTPUT.partition("Run Summary")[0],
        "no tests\n",
    ],
    ids=["failed without a word", "not all ran", "one more", "no summary", "nothing"],
)
def test_a_summary_that_does_not_fit(output: str) -> None:
    assert parse(output)[1]


def test_the_second_time_counts() -> None:
    again = OUTPUT.replace("Suite: NoMedia", "Suite: Read10\n  Test: BeyondEol ...\n    Send\npassed\nSuite: NoMedia")
    results, complaint = parse(again.replace("4      4      3      1", "5      5      4      1"))
    assert (results["Read10.BeyondEol"].outcome, complaint) == (Outcome.PASSED, "")


def test_which_of_two_runs_is_known_better() -> None:
    failed, passed, skipped, none = (Result(outcome) for outcome in Outcome)
    assert better_known(failed, passed) == better_known(passed, failed) == failed
    assert better_known(passed, skipped) == better_known(skipped, passed) == passed
    assert better_known(skipped, none) == better_known(none, skipped) == skipped


def test_list() -> None:
    assert parse_list(["ALL", "ALL.Read6", "ALL.Read6.Simple\n", "SCSI.Read6.Simple", ""]) == ["Read6.Simple"]
