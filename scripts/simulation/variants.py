"""Known-bad variants of the system: parts of it exchanged for wrong ones, to show that the checkers find each.

A checker that cannot fail proves nothing. None of this exists outside of the simulation: methods are replaced while a
seed runs.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import storage_model.pair
from scripts.simulation.disks import SimulatedBitmapFile, SimulatedMetadata
from storage_model.pair import PairRequest
from storage_model.pair_reservation import seen_from
from storage_model.pair_state import PairState, PairVerb, Side
from storage_model.spec.copy_frames import Frame, FrameType
from target.remote_copy.half_group import HalfGroup
from target.remote_copy.pair_control import PairControl
from target.remote_copy.pair_decision import PairDecision
from target.remote_copy.pair_half import MIRRORED, PairHalf, moved_inside
from target.remote_copy.pair_meeting import PairMeeting
from target.remote_copy.pair_reservations import PairReservations
from target.remote_copy.primary_volume import PrimaryVolume
from target.remote_copy.region_marks import RegionMarks
from target.remote_copy.secondary_volume import SecondaryVolume
from target.remote_copy.write_gate import WriteGate
from target.scsi.unit_reservation import UnitReservation

Method = Callable[..., Any]
_background: list[Awaitable[Any]] = []


def _cleared_on_send(original: Method) -> Method:
    async def begin(self: Any, regions: range) -> None:
        await original(self, regions)
        for region in regions:
            if self._passing.pop(region, None) is not None:
                self.bitmap.clear(region)

    return begin


def _acknowledged_early(original: Method) -> Method:
    async def carry_out(self: Any, frame: Frame) -> Frame:
        if frame.type is not FrameType.WRITE:
            result: Frame = await original(self, frame)
            return result
        _background.append(asyncio.ensure_future(original(self, frame)))
        return Frame(FrameType.ANSWER)

    return carry_out


def _decided_alone(original: Method) -> Method:
    async def propose(self: Any, value: Any) -> None:
        register = self._half.register
        _background.append(asyncio.ensure_future(original(self, value)))
        for effect in register.heard_decided(value):
            await self._enter(effect.value, None)

    return propose


def _new_p_vol_is_good(original: Method) -> Method:
    def resynced(base: Any, record: Any, request: Any, *rest: Any) -> Any:
        value = original(base, record, request, *rest)
        swapped = value.p_serial != record.decided.p_serial
        return replace(value, source=Side.P_VOL) if swapped and request.good_side is Side.NONE else value

    return resynced


def _outdated_is_good(original: Method) -> Method:
    def resynced(base: Any, record: Any, request: Any, *rest: Any) -> Any:
        value = original(base, record, request, *rest)
        outdated_is_p_vol = record.decided.outdated == value.p_serial
        good = Side.P_VOL if outdated_is_p_vol else Side.S_VOL
        return replace(value, source=good) if record.decided.outdated else value

    return resynced


def _taken_over_unmarked(original: Method) -> Method:
    return lambda *rest, **named: replace(original(*rest, **named), outdated="")


def _complete_or_not(original: Method) -> Method:
    def forced(record: Any, request: Any, **named: Any) -> Any:
        return original(record, replace(request, force=True), **named)

    return forced


def _suspended_alone(original: Method) -> Method:
    async def suspend(self: Any, faulty: Any, reason: str) -> None:
        def suspended(records: Any) -> Any:
            name = faulty.identity.name
            return {name: moved_inside(records[name], records[name].decided.epoch, MIRRORED, PairState.PSUE)}

        await self.save(suspended, must_be_durable=False)

    return suspend


def _one_by_one(original: Method) -> Method:
    async def save_pairs(self: Any, records: Any) -> None:
        for name, record in records.items():
            await original(self, {name: record})

    return save_pairs


def _not_saved(original: Method) -> Method:
    async def save(self: Any, pages: Any) -> None:
        del self, pages

    return save


def _nothing_to_do_in_pair(original: Method) -> Method:
    async def request(self: Any, request: PairRequest) -> int:
        if request.verb is PairVerb.RESYNC and self.half.state is PairState.PAIR:
            return int(self.half.record.decided.epoch)
        return int(await original(self, request))

    return request


def _merged(original: Method) -> Method:
    async def request(self: Any, request: PairRequest) -> int:
        record = self.half.record
        unnamed = request.verb in (PairVerb.RESYNC, PairVerb.SWAP_RESYNC) and request.claim is None
        if unnamed and record.decided.outdated and record.state is PairState.PSUE:
            verb = PairVerb.RECOVER if request.verb is PairVerb.RESYNC else PairVerb.SWAP_RECOVER
            request = replace(request, verb=verb, good_side=Side.P_VOL)
        return int(await original(self, request))

    return request


def _always_reconcilable(original: Method) -> Method:
    def reconcilable(self: Any, told: Any) -> bool:
        original(self, told)
        self._half.split_brain = False
        return True

    return reconcilable


def _told_before_durable(original: Method) -> Method:
    async def save_decision(self: Any, value: Any) -> None:
        before = self.record
        _background.append(asyncio.ensure_future(original(self, value)))
        self.hold(replace(before, decided=value, state=value.state, accepted=None))

    return save_decision


def _local_flush(original: Method) -> Method:
    async def flush_both(self: Any) -> bool:
        await self._half.volume.flush()
        return True

    return flush_both


def _stale_read(original: Method) -> Method:
    async def read(self: Any, offset_bytes: int, length_bytes: int) -> Any:
        return await self._half.volume.read(offset_bytes, length_bytes)

    return read


def _open_to_all(original: Method) -> Method:
    return lambda self, nexus: True


def _forgotten(original: Method) -> Method:
    return lambda self, bitmap, **named: True


def _unmarked(original: Method) -> Method:
    async def last(self: Any, regions: Any) -> None:
        del self, regions

    return last


def _not_waiting(original: Method) -> Method:
    async def close(self: Any) -> None:
        self._closed += 1
        self._open.clear()

    return close


def _entry_told_before_vote(original: Method) -> Method:
    async def ask(self: Any, proposal: Any) -> asyncio.Event:
        ended: asyncio.Event = await self._enter(proposal)
        _background.append(asyncio.ensure_future(self._request(FrameType.RESERVATION, proposal.encode())))
        return ended

    return ask


def _not_awaited(original: Method) -> Method:
    async def ended(self: Any) -> None:
        del self

    return ended


def _ended_at_once(original: Method) -> Method:
    def abort(self: Any, *rest: Any) -> asyncio.Event:
        original(self, *rest)
        ended = asyncio.Event()
        ended.set()
        return ended

    return abort


def _table_in_memory(original: Method) -> Method:
    async def save(self: Any, record: Any) -> None:
        self.record = record
        self._show()

    return save


def _doubt_forgotten(original: Method) -> Method:
    def show(self: Any) -> None:
        self.unit.show(seen_from(self.record.decided.state, self._base), None)

    return show


Patch = tuple[object, str, Callable[[Method], Method]]

VARIANTS: dict[str, tuple[Patch, ...]] = {
    "bitmap-cleared-on-send": ((RegionMarks, "begin", _cleared_on_send),),
    "s-vol-acknowledges-early": ((SecondaryVolume, "_carry_out", _acknowledged_early),),
    "good-before-vote": ((PairDecision, "propose", _decided_alone),),
    "vote-told-before-durable": ((PairHalf, "save_decision", _told_before_durable),),
    "swap-discards": ((storage_model.pair, "_resynced", _new_p_vol_is_good),),
    "marks-not-durable": ((SimulatedBitmapFile, "save", _not_saved),),
    "marks-forgotten": ((SimulatedBitmapFile, "load", _forgotten),),
    "suspended-writes-unmarked": ((RegionMarks, "last", _unmarked),),
    "gate-does-not-wait": ((WriteGate, "close", _not_waiting),),
    "resync-succeeds-in-pair": ((PairControl, "request", _nothing_to_do_in_pair),),
    "flush-of-one-copy": ((PrimaryVolume, "_flush_both", _local_flush),),
    "stale-read-after-swap": ((PrimaryVolume, "read", _stale_read),),
    "entry-told-before-vote": ((PairReservations, "_ask", _entry_told_before_vote),),
    "abort-not-awaited": ((PairReservations, "_ended_there", _not_awaited), (UnitReservation, "abort", _ended_at_once)),
    "table-not-durable": ((PairReservations, "_save", _table_in_memory),),
    "doubt-forgotten": ((PairReservations, "_show", _doubt_forgotten),),
    "outdated-half-is-good": ((storage_model.pair, "_resynced", _outdated_is_good),),
    "takeover-without-outdated": ((storage_model.pair, "forced_epoch", _taken_over_unmarked),),
    "split-brain-not-seen": ((PairMeeting, "reconcilable", _always_reconcilable),),
    "split-brain-merged": ((PairControl, "request", _merged),),
    "incomplete-half-taken-over": ((storage_model.pair, "forced_epoch", _complete_or_not),),
    "fault-suspends-one-of-a-group": ((HalfGroup, "suspend", _suspended_alone),),
    "group-saved-one-by-one": ((SimulatedMetadata, "save_pairs", _one_by_one),),
    "quorum-open-to-all": ((PairHalf, "_may_update_quorum", _open_to_all),),
}
"""By name: whose methods they are, and what makes the wrong one out of the right one."""


@contextmanager
def variant(name: str | None) -> Iterator[None]:
    """Everything inside runs with the wrong parts; None: with none."""
    with ExitStack() as undo:
        for owner, attribute, wrong in VARIANTS[name] if name is not None else ():
            original = getattr(owner, attribute)
            setattr(owner, attribute, wrong(original))
            undo.callback(setattr, owner, attribute, original)
        undo.callback(_background.clear)
        yield
