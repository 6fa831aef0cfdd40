"""The person with pairctl: makes pairs, splits, resyncs, swaps and deletes them, and repairs what a fault broke."""

import asyncio
from dataclasses import dataclass, replace
from functools import partial
from random import Random

from initiator_shim.pair_client import PairRefused, pair_control, report_pair_status
from initiator_shim.pair_orders import find_pairs, take_over
from initiator_shim.pair_takeover import TakeoverResult
from initiator_shim.session_errors import SessionError
from scripts.simulation.arrays import LUNS, PORTAL, SERIALS
from scripts.simulation.clients import Client
from scripts.simulation.journal import Journal
from scripts.simulation.ledger import Ledger
from scripts.simulation.registers import Registers
from storage_model.pair_state import PairRole, PairState, Refusal
from storage_model.spec.pair_cdb import PairControlOut, PairOption, PairOut, PairStatus, StatusFlag

_SECONDS = 5.0
_GOOD = {PairRole.P_VOL: PairOption.GOOD_P_VOL, PairRole.S_VOL: PairOption.GOOD_S_VOL}
_AFTER_FORCE = StatusFlag.OUTDATED | StatusFlag.PEER_OUTDATED | StatusFlag.SPLIT_BRAIN
_RESULTS = {int(result): result.name for result in TakeoverResult}
_GIVES_THE_P_VOL_UP = 0.03  # in a repair, though it may be complete: the S-VOL's data is wanted
_AT_THE_P_VOL = 0.1  # there it only opens what the fence level holds back


def _fits_a_group(command: PairControlOut) -> bool:
    """Of what names a side only where that is the default: another pair's good side was not looked at."""
    match command.service_action:
        case PairOut.SPLIT | PairOut.SWAP_RESYNC:
            return not command.options
        case PairOut.RESYNC:
            return command.options in (PairOption.NONE, PairOption.GOOD_P_VOL)
    return False


@dataclass
class Habits:
    """What the operator does how often; ``think`` in seconds is a mean, the others are chances at each look."""

    think: float
    split: float
    writable: float
    resync: float
    swap: float
    delete: float
    repair: float
    group: float
    """To mean the whole group, where a pair is spoken of."""
    force: float
    """To take over by force where the other array cannot be reached."""
    split_brain: float
    """And at both arrays, or at one that is outdated; only if it is above 0."""


class Operator:
    """Works on both arrays, over its own sessions. ``calm``: only brings pairs to PAIR."""

    def __init__(
        self,
        random: Random,
        journal: Journal,
        registers: Registers,
        ledger: Ledger,
        habits: Habits,
        pairs: tuple[str, ...],
    ) -> None:
        self.calm = False
        self._random = random
        self._journal = journal
        self._registers = registers
        self._ledger = ledger
        self._pairs = pairs
        self._forced: dict[str, str] = {}
        """Where, until the pair is seen to mirror again: only in some worlds an operator takes over at both arrays."""
        self._habits = habits
        self._clients: dict[str, Client] = {}

    async def run(self) -> None:
        for number, array in enumerate(SERIALS):
            self._clients[array] = Client(
                "iqn.2026-11.org.pairvol:pairctl", bytes((0x80, 0, 0, 0, 0, number)), array, PORTAL
            )
        while True:
            await asyncio.sleep((0.3 if self.calm else self._habits.think) * self._random.expovariate(1.0))
            array, pair = self._random.choice(tuple(SERIALS)), self._random.choice(self._pairs)
            try:
                status = await report_pair_status(self._clients[array], LUNS[pair], _SECONDS)
                await self._act(array, pair, status)
            except PairRefused as refused:
                self._journal.note("operator", "is refused:", refused)
            except SessionError as error:
                self._journal.note("operator", "fails:", type(error).__name__)

    async def _act(self, array: str, pair: str, status: PairStatus) -> None:
        mirrors = status.state in (PairState.COPY, PairState.PAIR) and status.flags & StatusFlag.LINK_UP
        if mirrors and self._forced.get(pair) == array:  # the other one may not have heard of the takeover yet
            del self._forced[pair]
        apart = not status.flags & StatusFlag.LINK_UP and status.state in (PairState.PSUS, PairState.PSUE)
        at_the_p_vol = max(_AT_THE_P_VOL, self._habits.split_brain)
        force = self._habits.force * (1.0 if status.role is PairRole.S_VOL else at_the_p_vol)
        if self._is_split_brain(status) and status.role is PairRole.P_VOL and not status.flags & StatusFlag.LINK_UP:
            await self._give_up(array, pair)
            return
        if apart and not self.calm and force and self._random.random() < force:
            await self._force(array, pair)
            return
        match status.state:
            case PairState.SMPL:
                options = PairOption.REMOTE_P_VOL if self._random.random() < 0.5 else PairOption.NONE
                await self._do(array, pair, PairControlOut(PairOut.CREATE, options))
            case PairState.PSUE:
                await self._repair(array, pair, status)
            case PairState.PSUS:
                await self._resync(array, pair, status)
            case _ if not self.calm:
                await self._disturb(array, pair, status)

    async def _do(self, array: str, pair: str, command: PairControlOut, *, alone: bool = False) -> None:
        named = self._habits.split_brain > 0 and command.options  # for a pair that is to be decided by itself
        if not alone and not named and _fits_a_group(command) and self._random.random() < self._habits.group:
            command = replace(command, options=command.options | PairOption.GROUP)
        words = f"{command.service_action.name} {command.options!r}"
        self._journal.note("operator", "asks", array, pair, words)
        self._journal.outcomes[f"operator {command.service_action.name}"] += 1
        await pair_control(self._clients[array], LUNS[pair], command, b"", _SECONDS)

    async def _force(self, array: str, pair: str) -> None:
        """``pairctl takeover --force``, of the pair or of its group. What only the other array has is given up."""
        units = await find_pairs(self._clients[array], _SECONDS)
        if self._random.random() < 0.5:
            units = [unit for unit in units if unit.status.pair_name == pair]
        if any(self._forced.get(name, array) != array for name in self._pairs) and not self._may_part():
            return
        incomplete = self._may_part()
        for unit in units:
            self._forced[unit.status.pair_name] = array
            self._ledger.forced(unit.status.pair_name, SERIALS[array], incomplete=incomplete)
        tell = partial(self._journal.note, "operator", "is told:")
        results = await take_over(self._clients[array], units, _SECONDS, tell, force=True, incomplete=incomplete)
        self._journal.note("operator", "has taken over at", array, results)
        for number in results.values():
            self._journal.outcomes[f"operator TAKEOVER {_RESULTS.get(number, 'refused')}"] += 1

    def _may_part(self) -> bool:
        return self._habits.split_brain > 0 and self._random.random() < self._habits.split_brain

    def _is_split_brain(self, status: PairStatus) -> bool:
        return self._habits.split_brain > 0 and StatusFlag.SPLIT_BRAIN in status.flags

    async def _give_up(self, array: str, pair: str) -> None:
        """``pairctl delete --force``, where the arrays cannot be joined: another look creates the pair anew."""
        self._ledger.given_up(pair, SERIALS[array])
        await self._do(array, pair, PairControlOut(PairOut.DELETE, PairOption.FORCE), alone=True)

    async def _choose(self, array: str, pair: str, verb: PairOut, status: PairStatus) -> None:
        """Of what a forced takeover has left: not before a side is named, any side, may it be resynced."""
        if self._random.random() < 0.5:
            await self._do(array, pair, PairControlOut(verb), alone=True)
        else:
            await self._name(array, pair, verb, status, self._random.choice((PairRole.P_VOL, PairRole.S_VOL)))

    async def _name(self, array: str, pair: str, verb: PairOut, status: PairStatus, good: PairRole) -> None:
        """A side is named by its present role; the verb holds for the epoch in which that was seen."""
        serial = status.serial if good is status.role else status.peer_serial
        self._registers.named(pair, serial)
        await self._do(array, pair, PairControlOut(verb, _GOOD[good], expected_epoch=status.epoch), alone=True)

    async def _repair(self, array: str, pair: str, status: PairStatus) -> None:
        """The P-VOL is good, unless the array says that only the S-VOL is complete."""
        if not self.calm and self._random.random() > self._habits.repair:
            return
        if not self.calm and self._random.random() < _GIVES_THE_P_VOL_UP:
            await self._name(array, pair, PairOut.RESYNC, status, PairRole.S_VOL)
            return
        swap = status.role is PairRole.S_VOL and self._random.random() < 0.3
        verb = PairOut.SWAP_RESYNC if swap and status.owner is None else PairOut.RESYNC
        if self._habits.split_brain > 0 and status.flags & _AFTER_FORCE:
            await self._choose(array, pair, verb, status)
            return
        try:
            await self._do(array, pair, PairControlOut(verb, PairOption.GOOD_P_VOL, expected_epoch=status.epoch))
        except PairRefused as refused:
            if refused.refusal is not Refusal.SUSPENDED_BY_ERROR:
                raise
            await self._do(array, pair, PairControlOut(verb, PairOption.GOOD_S_VOL, expected_epoch=status.epoch))

    async def _resync(self, array: str, pair: str, status: PairStatus) -> None:
        chance = self._random.random()
        if not self.calm and chance > (self._habits.resync if pair == "quorum0" else self._habits.swap):
            return
        verb = PairOut.RESYNC if status.role is PairRole.P_VOL else PairOut.SWAP_RESYNC
        try:
            await self._do(array, pair, PairControlOut(verb))
        except PairRefused as refused:
            if refused.refusal is not Refusal.BOTH_WRITTEN:
                raise
            good = self._random.choice((PairRole.P_VOL, PairRole.S_VOL))
            await self._name(array, pair, verb, status, good)

    async def _disturb(self, array: str, pair: str, status: PairStatus) -> None:
        random, habits = self._random, self._habits
        if random.random() < habits.delete:
            await self._do(array, pair, PairControlOut(PairOut.DELETE))
        elif random.random() < self._split_chance(pair, status):
            writable = pair != "quorum0" and random.random() < habits.writable
            options = PairOption.S_VOL_WRITABLE if writable else PairOption.NONE
            await self._do(array, pair, PairControlOut(PairOut.SPLIT, options))

    def _split_chance(self, pair: str, status: PairStatus) -> float:
        """Figure 10: a quorum pair is split for the next race."""
        if pair == "quorum0" and status.owner is None:
            return 0.8
        return self._habits.split * (0.2 if status.state is PairState.COPY else 1.0)
