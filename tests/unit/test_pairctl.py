"""What pairctl shows and takes, without an array."""

import io
import json
import socket
import threading
from dataclasses import replace

import pytest

from initiator_shim.pair_arguments import argument_parser, pair_command, parse_arguments
from initiator_shim.pair_copies import verify_outcome
from initiator_shim.pair_display import (
    PairUnit,
    advice,
    as_json,
    goal_reached,
    owners,
    parse_state,
    remarks,
    select,
    select_group,
    table,
)
from initiator_shim.pair_exit_codes import refusal_number, volchk_status
from initiator_shim.pair_progress import CopyProgress, copying, fitting, readable_bytes, redraw, work
from initiator_shim.pair_takeover import Plan, TakeoverImpossible, TakeoverResult, Way, plan_takeover, takeover_number
from initiator_shim.pairctl import _owner, main
from storage_model.errors import UserError
from storage_model.nexus import ITNexus
from storage_model.pair_state import FenceLevel, PairRole, PairState, Refusal
from storage_model.spec.pair_cdb import PairControlOut, PairOption, PairOut, PairStatus, StatusFlag, VerifyState

LINKED = StatusFlag.QUORUM | StatusFlag.LINK_UP | StatusFlag.CONFIGURED
OWNER = ITNexus("iqn.2026-11.org.example:host", bytes.fromhex("800000000001"))
P_VOL = PairStatus(
    role=PairRole.P_VOL, state=PairState.PSUS, fence=FenceLevel.DATA, flags=LINKED, copy_percent=100, epoch=4,
    ldev=10, peer_ldev=11, differing_bytes=0, size_bytes=1 << 24, serial="30095", peer_serial="30096",
    owner_serial="", owner=None, pair_name="quorum0", group_name="qgrp", volume_name="quorum",
)  # fmt: skip
S_VOL = replace(
    P_VOL, role=PairRole.S_VOL, ldev=11, peer_ldev=10, serial="30096", peer_serial="30095",
    flags=LINKED | StatusFlag.S_VOL_WRITABLE,
)  # fmt: skip
CUT_OFF = replace(P_VOL, state=PairState.PSUE, flags=StatusFlag.CONFIGURED, peer_ldev=0)
UNPAIRED = replace(P_VOL, role=PairRole.SMPL, state=PairState.SMPL)


def rows(*units: PairUnit) -> list[list[str]]:
    return [line.split() for line in table(units).splitlines()]


def test_the_table_has_pairdisplays_form() -> None:
    assert table([PairUnit(1, P_VOL)]) == (
        "Group PairVol(L/R) (Port#,TID, LU),Seq#,LDEV#.P/S,Status,Fence, %,P-LDEV# M\n"
        "qgrp  quorum0(L)   (CL1-A-1,0, 1)30095    10.P-VOL PSUS DATA  , 100    11 -\n"
        "qgrp  quorum0(R)   (CL1-A-1,0, 1)30096    11.S-VOL SSUS DATA  , 100    10 -\n"
    )


def test_a_longer_name_moves_the_columns_together() -> None:
    lines = table([PairUnit(0, P_VOL), PairUnit(1, replace(P_VOL, pair_name="a" * 20))]).splitlines()
    assert len({line.index("(CL1-A") for line in lines[1:]} | {lines[0].index("(Port#")}) == 1


def test_an_s_vol_shows_its_p_vol_on_the_right() -> None:
    _, left, right = rows(PairUnit(1, S_VOL))
    assert "11.S-VOL" in left and "SSUS" in left and left[-1] == "W"
    assert "10.P-VOL" in right and "PSUS" in right and right[-1] == "-"


def test_without_a_link_the_other_half_is_not_guessed() -> None:
    _, left, right = rows(PairUnit(1, CUT_OFF))
    assert left[4:] == ["10.P-VOL", "PSUE", "DATA", ",", "100", "-", "-"]
    assert right[4:] == ["-.S-VOL", "----", "DATA", ",", "-", "10", "-"]
    _, left, right = rows(PairUnit(1, replace(CUT_OFF, role=PairRole.SMPL, state=PairState.SMPL)))
    assert "10.SMPL" in left and "-.----" in right, "it may be paired there"
    assert as_json(PairUnit(1, CUT_OFF))["peer_ldev"] is None
    assert as_json(PairUnit(1, P_VOL))["peer_ldev"] == 11


IMPLIED = "(R) as array 30095 sees it"
DOWN = "quorum0: the link to array 30096 is down"


@pytest.mark.parametrize(
    ("unit", "others", "peer_asked", "lines"),
    [
        (PairUnit(1, P_VOL), [], False, [f"{IMPLIED}; --peer asks the other array"]),
        (PairUnit(1, P_VOL, S_VOL), [], True, []),
        (PairUnit(1, P_VOL), [], True, ["quorum0: the array asked with --peer has no such pair", IMPLIED]),
        (
            PairUnit(1, CUT_OFF), [], False,
            [f"{DOWN}, or the pair is not configured there", f"{IMPLIED}; --peer asks the other array"],
        ),
        (PairUnit(1, CUT_OFF, S_VOL), [], True, [DOWN]),
        (
            PairUnit(1, CUT_OFF), [PairUnit(2, P_VOL)], False,
            ["quorum0: the pair is not configured at array 30096", f"{IMPLIED}; --peer asks the other array"],
        ),
        (
            PairUnit(1, CUT_OFF, S_VOL), [PairUnit(2, P_VOL)], True,
            ["quorum0: the pair is not yet connected at array 30096"],
        ),
    ],
)  # fmt: skip
def test_remarks(unit: PairUnit, others: list[PairUnit], peer_asked: bool, lines: list[str]) -> None:
    assert remarks([unit], [unit, *others], peer_asked=peer_asked).splitlines() == lines


def test_no_remarks_on_no_pairs() -> None:
    assert remarks([], [], peer_asked=False) == ""


def test_what_is_implied_is_said_once() -> None:
    units = [PairUnit(1, P_VOL), PairUnit(2, P_VOL)]
    assert remarks(units, units, peer_asked=False).count("\n") == 1


def test_a_refusal_that_asks_for_the_good_side_names_the_option() -> None:
    for refusal in (Refusal.SUSPENDED_BY_ERROR, Refusal.BOTH_WRITTEN):
        assert advice("resync", refusal) == " (--good p or --good s)"
        assert advice("split", refusal) == " (resync --good p or --good s)"
    assert advice("resync", Refusal.MIRRORING) == advice("resync", None) == ""


def test_the_other_arrays_own_word_comes_first() -> None:
    _, _, right = rows(PairUnit(1, P_VOL, replace(S_VOL, state=PairState.PSUE)))
    assert "PSUE" in right


def test_an_unpaired_volume() -> None:
    _, left, right = rows(PairUnit(1, UNPAIRED))
    assert "10.SMPL" in left and "11.SMPL" in right


def test_no_pairs() -> None:
    assert table([]) == "no pairs are configured at this array\n"


def test_owners() -> None:
    owned = replace(P_VOL, owner=OWNER, owner_serial="30096")
    assert owners([PairUnit(1, P_VOL)]) == "quorum0: epoch 4, no owner\n"
    assert owners([PairUnit(1, owned)]) == f"quorum0: epoch 4, owner {OWNER.initiator_port_name} at array 30096\n"
    assert owners([PairUnit(1, replace(P_VOL, flags=StatusFlag.CONFIGURED))]) == ""


def test_json_can_be_read_back() -> None:
    unit = PairUnit(1, replace(P_VOL, owner=OWNER, owner_serial="30095"), S_VOL)
    data = json.loads(json.dumps(as_json(unit)))
    assert (data["pair"], data["role"], data["state"], data["epoch"], data["fence"]) == (
        "quorum0", "P-VOL", "PSUS", 4, "data",
    )  # fmt: skip
    assert data["owner"] == {
        "initiator_name": OWNER.initiator_name, "isid": "800000000001", "target_port": 1, "serial": "30095",
    }  # fmt: skip
    assert data["peer"]["role"] == "S-VOL"


def test_a_name_is_a_pair_or_a_group() -> None:
    units = [PairUnit(lun, replace(P_VOL, pair_name=f"p{lun}", group_name="g")) for lun in (0, 1)]
    assert select(units, "p1") == [units[1]]
    assert select(units, "g") == units
    with pytest.raises(UserError, match="p0, p1"):
        select(units, "other")


def test_states() -> None:
    assert parse_state("pair") is PairState.PAIR
    assert parse_state("SSUS") is PairState.PSUS
    with pytest.raises(UserError, match="SMPL, COPY, PAIR"):
        parse_state("paired")


@pytest.mark.parametrize(
    ("refusal", "number"),
    [
        (Refusal.MIRRORING, 228),
        (Refusal.NOT_PAIRED, 228),
        (Refusal.EPOCH_MOVED, 228),
        (Refusal.PEER_UNREACHABLE, 221),
        (Refusal.BUSY, 221),
        (None, 221),
    ],
)
def test_ccis_error_numbers(refusal: Refusal | None, number: int) -> None:
    assert refusal_number(refusal) == number


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ("create p", PairControlOut(PairOut.CREATE)),
        (
            "create p --remote-p-vol --fence status --no-copy",
            PairControlOut(PairOut.CREATE, PairOption.REMOTE_P_VOL | PairOption.NO_COPY, FenceLevel.STATUS),
        ),
        ("split p", PairControlOut(PairOut.SPLIT)),
        ("split p -rw", PairControlOut(PairOut.SPLIT, PairOption.S_VOL_WRITABLE)),
        ("resync p", PairControlOut(PairOut.RESYNC)),
        ("resync p --swap", PairControlOut(PairOut.SWAP_RESYNC)),
        ("resync p --good p", PairControlOut(PairOut.RESYNC, PairOption.GOOD_P_VOL)),
        ("resync p --swap --good s", PairControlOut(PairOut.SWAP_RESYNC, PairOption.GOOD_S_VOL)),
        ("delete p", PairControlOut(PairOut.DELETE)),
        ("delete p --force", PairControlOut(PairOut.DELETE, PairOption.FORCE)),
        (
            "paircreate -g g -vr -f data -nocopy",
            PairControlOut(PairOut.CREATE, PairOption.REMOTE_P_VOL | PairOption.NO_COPY, FenceLevel.DATA),
        ),
        ("paircreate -g g -vl", PairControlOut(PairOut.CREATE)),
        ("pairsplit -g g -r", PairControlOut(PairOut.SPLIT)),
        ("pairsplit -g g -d p -rw", PairControlOut(PairOut.SPLIT, PairOption.S_VOL_WRITABLE)),
        ("pairsplit -g g -S", PairControlOut(PairOut.DELETE)),
        ("pairresync -g g", PairControlOut(PairOut.RESYNC)),
        ("pairresync -g g -swaps", PairControlOut(PairOut.SWAP_RESYNC)),
        ("pairresync -g g -swapp --peer iscsi://b", PairControlOut(PairOut.SWAP_RESYNC)),
    ],
)
def test_verbs(arguments: str, command: PairControlOut) -> None:
    assert pair_command(argument_parser().parse_args(arguments.split())) == command


@pytest.mark.parametrize(
    ("arguments", "array", "timeout"),
    [
        ("status", "iscsi://127.0.0.1:3260", 10.0),
        ("-a iscsi://b --timeout-seconds 2 status", "iscsi://b", 2.0),
        ("status -a iscsi://b --timeout-seconds 2", "iscsi://b", 2.0),
        ("--timeout-seconds 2 create p --array iscsi://b", "iscsi://b", 2.0),
        ("wait -a iscsi://b p PAIR --timeout 1", "iscsi://b", 10.0),
        ("-a iscsi://a status -a iscsi://b", "iscsi://b", 10.0),
    ],
)
def test_the_array_may_be_named_before_or_behind_the_verb(arguments: str, array: str, timeout: float) -> None:
    given = argument_parser().parse_args(arguments.split())
    assert (given.array, given.timeout_seconds) == (array, timeout)


@pytest.mark.parametrize(
    ("verb", "reached"),
    [
        (PairOut.CREATE, set()),
        (PairOut.SWAP_RESYNC, {PairState.COPY, PairState.PAIR}),
        (PairOut.SPLIT, {PairState.PSUS}),
        (PairOut.DELETE, {PairState.SMPL}),
    ],
)
def test_goals(verb: PairOut, reached: set[PairState]) -> None:
    assert {s for s in PairState if goal_reached(PairControlOut(verb), replace(P_VOL, state=s))} == reached


def test_a_program_may_be_called_by_a_verbs_name() -> None:
    assert parse_arguments(["-g", "g", "-S"], "/usr/bin/pairsplit").verb == "split"
    assert parse_arguments(["pairvolchk", "p", "-ss"], "pairctl").with_state
    assert parse_arguments(["p"], "horctakeover").verb == "takeover"
    assert parse_arguments(["status"], "/opt/pairctl.py").verb == "display"


def test_a_group_a_pair_of_it_or_a_pair() -> None:
    units = [PairUnit(lun, replace(P_VOL, pair_name=f"p{lun}", group_name="g" if lun else "")) for lun in (0, 1, 2)]
    assert select_group(units, "g", None) == units[1:]
    assert select_group(units, "g", "p1") == [units[1]]
    assert select_group(units, None, "p0") == [units[0]]
    with pytest.raises(UserError, match=r"no group h pair p1 .*-/p0, g/p1, g/p2"):
        select_group(units, "h", "p1")


@pytest.mark.parametrize(
    ("roles_and_states", "plain", "with_state"),
    [
        ([(PairRole.SMPL, PairState.SMPL)], 1, 11),
        ([(PairRole.P_VOL, PairState.COPY)], 2, 22),
        ([(PairRole.P_VOL, PairState.PAIR)], 2, 23),
        ([(PairRole.P_VOL, PairState.PSUS)], 2, 24),
        ([(PairRole.P_VOL, PairState.PSUE)], 2, 25),
        ([(PairRole.S_VOL, PairState.COPY)], 3, 32),
        ([(PairRole.S_VOL, PairState.PAIR)], 3, 33),
        ([(PairRole.S_VOL, PairState.PSUS)], 3, 34),
        ([(PairRole.S_VOL, PairState.PSUE)], 3, 35),
        ([(PairRole.P_VOL, PairState.PAIR), (PairRole.P_VOL, PairState.PSUE)], 2, 26),
        ([(PairRole.S_VOL, PairState.PAIR), (PairRole.S_VOL, PairState.COPY)], 3, 36),
        ([(PairRole.S_VOL, PairState.PAIR), (PairRole.P_VOL, PairState.PAIR)], 236, 236),
    ],
)
def test_volchk(roles_and_states: list[tuple[PairRole, PairState]], plain: int, with_state: int) -> None:
    statuses = [replace(P_VOL, role=role, state=state) for role, state in roles_and_states]
    assert volchk_status(statuses, with_state=False) == plain
    assert volchk_status(statuses, with_state=True) == with_state


@pytest.mark.parametrize(
    ("status", "force", "way", "result"),
    [
        (P_VOL, False, Way.STAY, 0),
        (replace(CUT_OFF, fence=FenceLevel.NEVER), False, Way.STAY, 0),
        (S_VOL, False, Way.SWAP, 1),
        (replace(S_VOL, state=PairState.PAIR), False, Way.SPLIT_AND_SWAP, 1),
        (replace(CUT_OFF, role=PairRole.S_VOL), True, Way.FORCE, 2),
        (CUT_OFF, True, Way.FORCE, 4),
    ],
)
def test_takeover_plans(status: PairStatus, force: bool, way: Way, result: int) -> None:
    assert plan_takeover(status, force=force) == Plan(way, TakeoverResult(result))


@pytest.mark.parametrize(
    ("status", "force", "number"),
    [
        (UNPAIRED, True, 228),
        (CUT_OFF, False, 228),
        (replace(P_VOL, state=PairState.PSUE), True, 228),
        (replace(CUT_OFF, role=PairRole.S_VOL), False, 225),
        (replace(S_VOL, state=PairState.COPY), True, 225),
        (replace(S_VOL, state=PairState.PSUE), True, 225),
    ],
)
def test_takeovers_that_cannot_be(status: PairStatus, force: bool, number: int) -> None:
    with pytest.raises(TakeoverImpossible) as error:
        plan_takeover(status, force=force)
    assert error.value.number == number


def test_takeover_numbers() -> None:
    assert takeover_number(Refusal.BOTH_WRITTEN) == 223
    assert takeover_number(Refusal.OUTDATED) == 225
    assert takeover_number(Refusal.PEER_REACHABLE) == 228
    assert takeover_number(Refusal.NO_VOTE) == takeover_number(None) == 221


def test_what_a_forced_takeover_left_is_remarked() -> None:
    outdated = replace(S_VOL, flags=S_VOL.flags | StatusFlag.OUTDATED | StatusFlag.SPLIT_BRAIN)
    text = remarks([PairUnit(1, outdated, P_VOL)], [], peer_asked=True)
    assert text == (
        "quorum0: outdated: array 30095 was promoted by a forced takeover\n"
        "quorum0: SPLIT BRAIN: both halves have data that the other lacks: resync --good p or --good s\n"
    )
    assert as_json(PairUnit(1, outdated))["split_brain"] is True


def test_two_forced_takeovers_are_not_sent_to_a_resync_that_is_refused() -> None:
    apart = replace(CUT_OFF, flags=StatusFlag.CONFIGURED | StatusFlag.PEER_OUTDATED | StatusFlag.SPLIT_BRAIN)
    for peer in (None, apart):
        text = remarks([PairUnit(1, apart, peer)], [], peer_asked=True)
        assert "delete --force at an array that has the pair ends it at both, the data stay; then create" in text
        assert "if array 30096 shows its half as outdated, resync --good p or --good s once they are connected" in text
    outdated = replace(S_VOL, flags=StatusFlag.CONFIGURED | StatusFlag.OUTDATED | StatusFlag.SPLIT_BRAIN)
    text = remarks([PairUnit(1, apart, outdated)], [], peer_asked=True)
    assert text.endswith("lacks: resync --good p or --good s\n")


@pytest.mark.parametrize("verb", ["delete", "split"])
def test_by_force_does_not_mean_at_this_array_alone(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    help_text = " ".join(capsys.readouterr().out.split())
    assert "also where the pair has an owner or registered hosts" in help_text
    assert "it ends at both arrays, at this one alone only while the other cannot be reached" in help_text


def test_progress_of_a_copy() -> None:
    copy = replace(P_VOL, state=PairState.COPY, copy_percent=50, differing_bytes=8 << 20)
    progress = CopyProgress()
    assert progress.lines([PairUnit(1, copy)], 10.0) == [
        "quorum0      P-VOL COPY [##########..........]  50 %, 8.0 MiB left"
    ]
    copy = replace(copy, copy_percent=75, differing_bytes=4 << 20)
    assert progress.lines([PairUnit(1, copy)], 14.0) == [
        "quorum0      P-VOL COPY [###############.....]  75 %, 4.0 MiB left, 1.0 MiB/s, 4 s to go"
    ]
    assert progress.lines([PairUnit(1, P_VOL)], 15.0)[0].endswith("] 100 %")
    assert progress.lines([PairUnit(1, UNPAIRED)], 16.0) == ["quorum0      SMPL  ----"]
    assert fitting(["abcdef", "b"], 4, 3) == ["abc", "b"]
    assert fitting(["a", "b", "c"], 80, 3) == ["a", "(3 pairs)"]
    assert redraw(["a", "b"], 2) == "\x1b[2A\r\x1b[Ja\nb\n"
    assert [readable_bytes(n) for n in (0, 1536, 1 << 50)] == ["0 B", "1.5 KiB", "1024.0 TiB"]


RUNNING = replace(
    P_VOL, state=PairState.PAIR, copy_rate=20 << 20, bytes_per_second=1 << 20, verify=VerifyState.RUNNING,
    verified_bytes=4 << 20, verify_differing_bytes=1 << 16,
)  # fmt: skip
VERIFIED = replace(
    RUNNING, bytes_per_second=0, verify=VerifyState.ENDED, verified_bytes=15 << 20, verify_busy_bytes=1 << 20
)


def test_copies_and_comparisons_are_shown() -> None:
    units = [PairUnit(1, status) for status in (RUNNING, VERIFIED, P_VOL)]
    assert work(units).splitlines() == [
        "quorum0: copy_rate 20.0 MiB/s; verify running: 25 % compared, 64.0 KiB in regions that differ, 1.0 MiB/s,"
        " 12 s to go",
        "quorum0: copy_rate 20.0 MiB/s; verify ended: 93 % compared, 64.0 KiB in regions that differ, 1.0 MiB busy",
        "quorum0: copy_rate unlimited",
    ]
    copy = replace(P_VOL, state=PairState.COPY, differing_bytes=8 << 20, bytes_per_second=2 << 20)
    assert work([PairUnit(1, copy)]) == "quorum0: copy_rate unlimited; 8.0 MiB to copy, 2.0 MiB/s, 4 s to go\n"
    assert CopyProgress().lines([PairUnit(1, copy)], 0.0)[0].endswith("8.0 MiB left, 2.0 MiB/s, 4 s to go")
    assert CopyProgress().lines(units[:1], 0.0)[0].endswith("verify running: 25 % compared, 64.0 KiB in regions that"
                                                            " differ, 1.0 MiB/s, 12 s to go")  # fmt: skip
    assert [copying([unit]) for unit in units] == [True, False, False]


def test_copies_and_comparisons_in_json() -> None:
    pair = as_json(PairUnit(1, RUNNING))
    assert (pair["copy_rate"], pair["bytes_per_second"], pair["seconds_left"]) == (20 << 20, 1 << 20, 12)
    assert pair["verify"] == {
        "state": "running", "compared_bytes": 4 << 20, "differing_bytes": 1 << 16, "busy_bytes": 0,
    }  # fmt: skip
    plain = as_json(PairUnit(1, P_VOL))
    assert plain["copy_rate"] is plain["seconds_left"] is plain["verify"] is None


def test_outcomes_of_a_comparison() -> None:
    equal = replace(VERIFIED, verified_bytes=16 << 20, verify_differing_bytes=0, verify_busy_bytes=0)
    assert verify_outcome(equal) == (0, "quorum0: 16.0 MiB compared, equal")
    number, text = verify_outcome(VERIFIED)
    assert number == 225 and "64.0 KiB in regions that differ, 1.0 MiB not compared: busy" in text
    for state in (VerifyState.BROKEN_OFF, VerifyState.NONE):  # or the array was restarted meanwhile
        assert verify_outcome(replace(VERIFIED, verify=state))[0] == 228


def test_every_flag_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argument_parser()
    (verbs,) = (action for action in parser._actions if hasattr(action, "choices") and action.dest == "verb")
    assert isinstance(verbs.choices, dict)
    for each in (parser, *verbs.choices.values()):
        assert all(action.help for action in each._actions if action.dest != "verb")
    with pytest.raises(SystemExit) as exited:
        main(["--help"])
    assert exited.value.code == 0
    text = capsys.readouterr().out
    assert "  221  the array rejects the command (CCI's EX_CMDRJE, command rejected)\n" in text
    assert "  228  the pair is not in a state for it (EX_INVSTP, invalid state)\n" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-a", "127.0.0.1:3260", "status"], "--array 127.0.0.1:3260: not iscsi://"),
        (["-a", "iscsi://127.0.0.1:x", "status"], "the port must be a number"),
        (["-a", "iscsi://127.0.0.1:1", "status"], "cannot connect to 127.0.0.1:1"),
        (["-a", "iscsi://127.0.0.1:1", "wait", "p", "PAIRED"], "STATE PAIRED"),
        (["split"], "split: one of NAME, -g GROUP and -d PAIR"),
        (["split", "p", "-g", "g"], "split: one of NAME, -g GROUP and -d PAIR"),
        (["resync", "p", "-swapp"], "--peer must name the S-VOL's array"),
        (["split", "p", "--force"], "split: --force belongs to -S"),
        (["pairsplit", "-g", "g", "-rw", "--force"], "split: --force belongs to -S"),
        (["resync", "p", "--force"], "resync: --force belongs to --good"),
        (
            ["takeover", "p", "--force", "--owner", "iqn.x,i,0x800000000001,t,0x10000"],
            "a portal group, IQN,i,0xISID,t,",
        ),
        (["takeover", "p", "--force", "--owner", "iqn.x,i,0x800000000001,t,0x0"], "there is no portal group 0"),
        (["volchk"], "volchk: one of NAME, -g GROUP and -d PAIR"),
        (["-a", "iscsi://127.0.0.1:1", "volchk", "p"], "cannot connect to 127.0.0.1:1"),
        (["evtwait", "p", "-s", "PAIRED"], "STATE PAIRED"),
        (["takeover", "p", "--force", "--yes-i-know", "q"], "is not confirmed: 'q' is not p; nothing was changed"),
        (["takeover", "p", "--yes-i-know", "p"], "belong to --force"),
        (["takeover", "p", "--owner", "iqn.x"], "not an initiator port"),
        (["rate", "p", "20MBit"], "RATE: '20MBit' is not a size"),
        (["rate", "p", "1KiB"], "RATE: 1KiB a second is too slow (at least 64KiB, or unlimited)"),
    ],
)
def test_user_errors_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    answering = {"volchk", "evtwait", "takeover"} & set(arguments)
    assert main(arguments) == (242 if answering else 2)
    error = capsys.readouterr().err
    assert error.startswith("pairctl: ") and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", ["volchk p --bogus", "--bogus volchk p", "evtwait p", "takeover p --timeout-seconds x"]
)
def test_wrong_arguments_are_no_answer(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(arguments.split())
    assert exited.value.code == 242
    assert capsys.readouterr().err.startswith("usage: ")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ("evtwait p -s PAIR -t nan", 242),
        ("evtwait p -s PAIR -t -1", 242),
        ("wait p PAIR --timeout inf", 2),
        ("watch p --interval -5", 2),
        ("watch p --interval nan", 2),
        ("display --timeout-seconds -3", 2),
        ("--timeout-seconds nan takeover p", 242),
    ],
)
def test_what_is_no_span_of_time(arguments: str, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(arguments.split())
    assert exited.value.code == status
    assert capsys.readouterr().err.endswith("is not a number of seconds, 0 or more\n")


@pytest.mark.parametrize(("tag", "port"), [("", 1), (",t,0x2", 2), (",t,0x00fF", 255)])
def test_the_owner_is_named_with_its_portal_group(tag: str, port: int) -> None:
    assert _owner("iqn.x,i,0x800000000001" + tag) == ITNexus("iqn.x", bytes.fromhex("800000000001"), port)


def test_a_takeover_by_force_asks_for_the_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["-a", "iscsi://127.0.0.1:1", "takeover", "-g", "g", "--force"]
    for typed, outcome in (("no\n", "is not confirmed"), ("", "is not confirmed"), ("g\n", "cannot connect")):
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        assert main(words) == 242
        assert outcome in capsys.readouterr().err


def test_an_array_that_hangs_up_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = "{}:{}".format(*server.getsockname())
        hang_up = threading.Thread(target=lambda: server.accept()[0].close())
        hang_up.start()
        assert main(["-a", f"iscsi://{address}", "status"]) == 2
        hang_up.join()
    error = capsys.readouterr().err
    assert error.startswith(f"pairctl: {address}: the ") and error.count(address) == error.count("\n") == 1
