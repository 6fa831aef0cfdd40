"""The local halves of a consistency group: locked, closed, saved and suspended together. [C]

Locks and gates are taken in one order, by pair name (see ``storage_model.group_register.lock_order``).
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Protocol

from storage_model.group_register import lock_order
from storage_model.pair import PairRecord
from storage_model.pair_state import PairRole, PairState
from storage_model.volume import VolumeError
from target.remote_copy.pair_half import MIRRORED, PairHalf, moved_inside, swap_doubted
from target.remote_copy.write_gate import WriteGate

log = logging.getLogger("pairvol.pair")

Records = Mapping[str, PairRecord]


class GroupStore(Protocol):
    """Keeps pair records."""

    async def save_pairs(self, records: Records) -> None:
        """All or none; durable on return."""
        ...


class HalfGroup:
    """Implements ``pair_half.Suspension`` for its halves; ``halves`` are by pair name."""

    def __init__(self, name: str, halves: Mapping[str, PairHalf], store: GroupStore) -> None:
        self.name = name
        self.halves = {pair: halves[pair] for pair in lock_order(halves)}
        self._store = store
        for half in self.halves.values():
            half.together = self

    @property
    def records(self) -> dict[str, PairRecord]:
        """As they are now."""
        return {pair: half.record for pair, half in self.halves.items()}

    def changing(self, pairs: Iterable[str]) -> "Changing":
        """Nobody else changes these pairs, and none of their volumes is written."""
        return Changing([self.halves[pair] for pair in lock_order(pairs)])

    async def save(self, change: Callable[[Records], Records], *, must_be_durable: bool = True) -> Records:
        """Save those records that ``change`` gives new ones for, as one; returns them."""
        async with AsyncExitStack() as stack:
            for half in self.halves.values():
                await stack.enter_async_context(half.saving)
            before = self.records
            wanted = {
                pair: replace(record, withdrawn=tuple(self.halves[pair].withdrawn))
                for pair, record in change(before).items()
            }
            records = {pair: record for pair, record in wanted.items() if record != before[pair]}
            if not records:
                return records
            try:
                await self._store.save_pairs(records)
            except VolumeError as error:
                if must_be_durable:
                    raise
                log.error("group %s: %s", self.name, error)
            for pair, record in records.items():  # without a wait: nobody sees a part of it
                self.halves[pair].put(record)
            return records

    async def save_swap_doubt(self, pairs: Collection[str]) -> None:
        """See :meth:`PairHalf.save_swap_doubt`."""
        await self.save(lambda records: {pair: swap_doubted(records[pair]) for pair in pairs})

    async def save_no_swap_doubt(self, pairs: Collection[str]) -> None:
        """See :meth:`PairHalf.save_no_swap_doubt`."""

        def no_doubt(records: Records) -> Records:
            return {pair: self.halves[pair].no_swap_doubted(records[pair]) for pair in pairs}

        await self.save(no_doubt, must_be_durable=False)

    async def suspend(self, faulty: PairHalf, reason: str) -> None:
        """Every pair that is mirroring from here, if the faulty one still is: see :meth:`PairHalf.suspend`.

        An S-VOL goes alone: its P-VOL hears of it with the next write, and takes the others along before that is
        acknowledged. Were they suspended here first, a P-VOL that nobody writes would not know.
        """
        epoch = faulty.record.decided.epoch

        def suspended(records: Records) -> Records:
            own = records[faulty.identity.name]
            if moved_inside(own, epoch, MIRRORED, PairState.PSUE) == own:
                return {}
            alone = faulty.role is not PairRole.P_VOL
            return {
                pair: replace(record, state=PairState.PSUE)
                for pair, record in records.items()
                if record.state in MIRRORED and (record is own if alone else self.halves[pair].role is PairRole.P_VOL)
            }

        changed = await self.save(suspended, must_be_durable=False)
        for pair in changed:
            half = self.halves[pair]
            with_whom = "" if half is faulty else f"with pair {faulty.identity.name} of group {self.name}: "
            half.suspended(with_whom + reason)


class Closed:
    """All shut first: they wait for those inside at the same time, and nothing gets in that was written later."""

    def __init__(self, gates: Sequence[WriteGate]) -> None:
        self._gates = gates

    async def __aenter__(self) -> None:
        for gate in self._gates:
            gate.shut()
        try:
            for gate in self._gates:
                await gate.idle()
        except BaseException:
            self._open()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._open()

    def _open(self) -> None:
        for gate in self._gates:
            gate.open()


class Changing:
    """The halves' ``changing`` in their order, then their gates."""

    def __init__(self, halves: Sequence[PairHalf]) -> None:
        self._halves = halves
        self._held = AsyncExitStack()

    async def __aenter__(self) -> None:
        async with AsyncExitStack() as stack:
            for half in self._halves:
                await stack.enter_async_context(half.changing)
            await stack.enter_async_context(Closed([half.gate for half in self._halves]))
            self._held = stack.pop_all()

    async def __aexit__(self, *_: object) -> None:
        await self._held.aclose()
