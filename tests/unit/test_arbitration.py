"""Figure 5, from the local GOOD (112) to GOOD (117) or RESERVATION CONFLICT (116)."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from initiator_shim.arbitration import Decision, arbitrate, describe
from initiator_shim.initiator_task import ScsiOutcome
from initiator_shim.session_errors import CommandTimeout, SessionError, SessionLost
from storage_model.nexus import ITNexus
from storage_model.pair_state import FenceLevel, PairRole, PairState, Refusal
from storage_model.spec.pair_cdb import (
    PAIR_CONTROL_IN,
    PairControlOut,
    PairOut,
    PairStatus,
    StatusFlag,
    decode_claim,
)
from storage_model.spec.scsi_sense import SenseData, encode_sense
from storage_model.spec.scsi_task import ScsiStatus
from storage_model.volume import Buffer

HOST = ITNexus("iqn.2026-11.org.example:host-a", bytes.fromhex("800000000001"))
OTHER = ITNexus("iqn.2026-11.org.example:host-b", bytes.fromhex("800000000002"))
LUN = 3
UNIT_ATTENTION = SenseData(0x6, 0x2903)

Answer = ScsiOutcome | SessionError | None
"""What the array answers; None is GOOD."""


def status(
    role: PairRole = PairRole.P_VOL,
    state: PairState = PairState.PSUS,
    epoch: int = 6,
    owner: ITNexus | None = None,
    flags: StatusFlag = StatusFlag.QUORUM | StatusFlag.LINK_UP | StatusFlag.CONFIGURED,
    owner_serial: str = "",
) -> PairStatus:
    return PairStatus(
        role=role, state=state, fence=FenceLevel.DATA, flags=flags, copy_percent=100, epoch=epoch, ldev=10,
        peer_ldev=11, differing_bytes=0, size_bytes=1 << 20, serial="30095", peer_serial="30096", owner=owner,
        owner_serial=owner_serial or ("30095" if owner == HOST else "30096" if owner else ""),
        pair_name="quorum0", group_name="qgrp", volume_name="q",
    )  # fmt: skip


def refused(refusal: Refusal) -> ScsiOutcome:
    return check_condition(SenseData(refusal.sense_key, refusal.asc_ascq))


def check_condition(sense: SenseData) -> ScsiOutcome:
    return ScsiOutcome(ScsiStatus.CHECK_CONDITION, encode_sense(sense))


@dataclass
class ScriptedArray:
    """Answers status reports, verbs and withdrawals from lists, the last entry again and again."""

    reports: list[PairStatus | Answer]
    verbs: list[Answer] = field(default_factory=lambda: [None])
    withdrawals: list[Answer] = field(default_factory=lambda: [None])
    log: list[tuple[str, int]] = field(default_factory=list)
    timeouts: list[float] = field(default_factory=list)
    before: Callable[[str], None] = lambda _: None

    async def execute(
        self, lun: int, cdb: bytes, data_out: Buffer = b"", data_in_length: int = 0, timeout: float = 30.0
    ) -> ScsiOutcome:
        assert lun == LUN
        self.timeouts.append(timeout)
        if cdb[0] == PAIR_CONTROL_IN:
            self.before("REPORT")
            self.log.append(("REPORT", 0))
            return self._answer(self.reports)
        command = PairControlOut.decode(cdb)
        assert decode_claim(data_out) == HOST
        name = command.service_action.name
        self.before(name)
        self.log.append((name, command.expected_epoch))
        return self._answer(self.withdrawals if command.service_action is PairOut.WITHDRAW else self.verbs)

    def _answer(self, script: "list[PairStatus | Answer] | list[Answer]") -> ScsiOutcome:
        answer = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(answer, SessionError):
            raise answer
        if isinstance(answer, PairStatus):
            return ScsiOutcome(ScsiStatus.GOOD, data_in=answer.encode())
        return answer or ScsiOutcome(ScsiStatus.GOOD)


@dataclass
class Countdown:
    """A deadline whose time passes by being asked."""

    seconds: float = 3.0
    step: float = 0.0

    def remaining(self) -> float:
        self.seconds -= self.step
        return self.seconds


async def decide(
    array: ScriptedArray, deadline: Countdown | None = None, is_wanted: Callable[[], bool] = lambda: True
) -> Decision:
    return await arbitrate(array, HOST, LUN, deadline or Countdown(), is_wanted)


@pytest.mark.parametrize(
    ("role", "verb"), [(PairRole.P_VOL, "RESYNC"), (PairRole.S_VOL, "SWAP_RESYNC")], ids=["114", "115"]
)
async def test_the_role_chooses_the_verb_and_normal_end_is_good(role: PairRole, verb: str) -> None:
    array = ScriptedArray([status(role)])
    decision = await decide(array)
    assert decision.won and decision.arbitrated and decision.epoch == 7
    assert array.log == [("REPORT", 0), (verb, 6)]


@pytest.mark.parametrize("role", [PairRole.P_VOL, PairRole.S_VOL])
@pytest.mark.parametrize("refusal", [refusal for refusal in Refusal if refusal is not Refusal.EPOCH_MOVED])
async def test_abnormal_end_is_a_conflict_after_the_reservation_was_given_back(
    role: PairRole, refusal: Refusal
) -> None:
    array = ScriptedArray([status(role)], verbs=[refused(refusal)])
    decision = await decide(array)
    assert not decision.won and decision.given_back
    assert refusal.text in decision.reason
    assert [name for name, _ in array.log] == ["REPORT", array.log[1][0], "WITHDRAW"]


@pytest.mark.parametrize("code", [ScsiStatus.BUSY, ScsiStatus.RESERVATION_CONFLICT, ScsiStatus.TASK_SET_FULL])
async def test_any_other_status_is_a_conflict(code: ScsiStatus) -> None:
    decision = await decide(ScriptedArray([status()], verbs=[ScsiOutcome(code)]))
    assert not decision.won


async def test_other_volumes_are_not_arbitrated() -> None:
    array = ScriptedArray([status(flags=StatusFlag.CONFIGURED)])
    decision = await decide(array)
    assert decision.won and not decision.arbitrated
    assert array.log == [("REPORT", 0)]


async def test_an_array_without_pairs_is_not_arbitrated() -> None:
    array = ScriptedArray([check_condition(SenseData(0x5, 0x2000))])
    decision = await decide(array)
    assert decision.won and not decision.arbitrated


async def test_a_quorum_volume_without_a_pair_is_a_conflict() -> None:
    array = ScriptedArray([status(PairRole.SMPL, PairState.SMPL)])
    decision = await decide(array)
    assert not decision.won
    assert array.log == [("REPORT", 0), ("WITHDRAW", 0)]


async def test_the_owner_gets_good_again() -> None:
    array = ScriptedArray([status(state=PairState.PAIR, owner=HOST)])
    decision = await decide(array)
    assert decision.won and decision.epoch == 6
    assert array.log == [("REPORT", 0), ("RESYNC", 6)]


@pytest.mark.parametrize("linked", [StatusFlag.LINK_UP, StatusFlag.NONE])
async def test_the_owner_of_an_armed_pair_is_told_no_more_than_is_known(linked: StatusFlag) -> None:
    """In PSUS without the other array its GOOD rests on a vote alone: that epoch is not won yet."""
    flags = StatusFlag.QUORUM | StatusFlag.CONFIGURED | linked
    decision = await decide(ScriptedArray([status(owner=HOST, flags=flags)]))
    assert decision.won and decision.epoch == 6
    assert "already the owner; the next epoch is decided for it as well, or voted for" in decision.reason


async def test_the_same_nexus_at_the_other_array_wins_here_anew() -> None:
    decision = await decide(ScriptedArray([status(PairRole.S_VOL, owner=HOST, owner_serial="30096")]))
    assert (decision.epoch, decision.reason) == (7, "the swap resync of the S-VOL was decided")


async def test_a_moved_epoch_is_tried_again_by_its_owner() -> None:
    moved = status(PairRole.P_VOL, PairState.COPY, epoch=7, owner=HOST)
    array = ScriptedArray([status(PairRole.S_VOL), moved], verbs=[refused(Refusal.EPOCH_MOVED), None])
    decision = await decide(array)
    assert decision.won and decision.epoch == 7
    assert array.log == [("REPORT", 0), ("SWAP_RESYNC", 6), ("REPORT", 0), ("RESYNC", 7)]


@pytest.mark.parametrize("owner", [OTHER, None, replace(HOST, isid=bytes(6))])
async def test_a_moved_epoch_of_anybody_else_is_a_conflict(owner: ITNexus | None) -> None:
    moved = status(PairRole.P_VOL, PairState.COPY, epoch=7, owner=owner)
    array = ScriptedArray([status(), moved], verbs=[refused(Refusal.EPOCH_MOVED)])
    decision = await decide(array)
    assert not decision.won and decision.epoch == 7
    assert array.log == [("REPORT", 0), ("RESYNC", 6), ("REPORT", 0), ("WITHDRAW", 0)]


async def test_an_epoch_that_moves_again_is_a_conflict() -> None:
    moved = status(epoch=7, owner=HOST)
    array = ScriptedArray([status(), moved], verbs=[refused(Refusal.EPOCH_MOVED)])
    assert not (await decide(array)).won
    assert len(array.log) == 5


async def test_unit_attentions_of_the_control_session_are_not_an_answer() -> None:
    """The reset that a cluster sends before its RESERVE raises one for every nexus (¶58)."""
    attention = check_condition(UNIT_ATTENTION)
    array = ScriptedArray([attention, status()], verbs=[attention, attention, None])
    assert (await decide(array)).won


async def test_endless_unit_attentions_are_a_conflict() -> None:
    array = ScriptedArray([status()], verbs=[check_condition(UNIT_ATTENTION)])
    assert not (await decide(array)).won


@pytest.mark.parametrize("error", [SessionLost("gone"), CommandTimeout("late")])
@pytest.mark.parametrize("where", ["reports", "verbs"])
async def test_no_answer_is_a_conflict(error: SessionError, where: str) -> None:
    array = ScriptedArray([error] if where == "reports" else [status()], verbs=[error])
    decision = await decide(array)
    assert not decision.won and decision.given_back
    assert array.log[-1] == ("WITHDRAW", 0)


async def test_garbage_for_a_status_is_a_conflict() -> None:
    assert not (await decide(ScriptedArray([ScsiOutcome(ScsiStatus.GOOD, data_in=b"\0\0\0\1x")]))).won


async def test_no_command_is_sent_after_the_deadline_but_the_withdrawal() -> None:
    array = ScriptedArray([status()])
    decision = await decide(array, Countdown(seconds=1.5, step=1.0))
    assert not decision.won and "deadline" in decision.reason
    assert array.log == [("REPORT", 0), ("WITHDRAW", 0)]


async def test_each_command_has_only_the_time_that_is_left() -> None:
    array = ScriptedArray([status()])
    await decide(array, Countdown(seconds=3.0, step=1.0))
    assert array.timeouts == [2.0, 1.0]


@pytest.mark.parametrize("answer", [SessionLost("gone"), refused(Refusal.BUSY)])
async def test_a_withdrawal_that_fails_is_told(answer: Answer) -> None:
    array = ScriptedArray([status()], verbs=[refused(Refusal.MIRRORING)], withdrawals=[answer])
    decision = await decide(array)
    assert not decision.won and not decision.given_back


@pytest.mark.parametrize("gone_before", ["REPORT", "RESYNC"])
async def test_a_reserve_that_nobody_waits_for_is_withdrawn(gone_before: str) -> None:
    wanted = [True]

    def before(name: str) -> None:
        wanted[0] = wanted[0] and name != gone_before

    array = ScriptedArray([status()], before=before)
    decision = await decide(array, is_wanted=lambda: wanted[0])
    assert not decision.won
    names = [name for name, _ in array.log]
    assert names == (["REPORT", "WITHDRAW"] if gone_before == "REPORT" else ["REPORT", "RESYNC", "WITHDRAW"])


async def test_decisions_in_words() -> None:
    won = await decide(ScriptedArray([status()]))
    assert describe(won, HOST, LUN) == (
        f"RESERVE of LUN 3 by {HOST.initiator_port_name}: won epoch 7, the resync of the P-VOL was decided"
    )
    taken = status(state=PairState.PAIR, owner=OTHER)
    lost = await decide(ScriptedArray([taken], verbs=[refused(Refusal.MIRRORING)]))
    assert describe(lost, HOST, LUN) == (
        f"RESERVE of LUN 3 by {HOST.initiator_port_name}: refused in epoch 6, because the pair is mirroring (PAIR); "
        f"{OTHER.initiator_port_name} at array 30096 was the owner"
    )
    passed = await decide(ScriptedArray([status(flags=StatusFlag.NONE)]))
    assert "passed on" in describe(passed, HOST, LUN)
