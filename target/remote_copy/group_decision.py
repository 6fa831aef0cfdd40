"""How one array takes part in deciding the epochs of several pairs as one (I9). [C]

``group_register`` says who votes for what. Here a vote, and a decision, of all the pairs is one durable record; what
comes before it (marks) and after it (copies) is that of each pair, as in ``pair_decision``. Every call but
:meth:`GroupDecision.give_vote` is made inside ``HalfGroup.changing`` for the pairs that it is about.
"""

import logging
from asyncio import Task, current_task, gather
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from typing import Any

from storage_model.group_register import AcceptedGroup, DecideGroup, GroupRegister, Values, VoteGroup
from storage_model.pair import PairEpoch, PairRefused
from storage_model.pair_state import PairRole, PairState, Refusal
from storage_model.spec.copy_frames import Answer, Frame, FrameType
from storage_model.spec.group_frames import GroupProposal, decode_marks, encode_marks
from target.remote_copy.copy_link import LinkDown
from target.remote_copy.half_group import Closed, HalfGroup, Records
from target.remote_copy.pair_decision import PairDecision
from target.remote_copy.pair_half import MIRRORED, PairHalf, decided_record
from target.remote_copy.primary_volume import PrimaryVolume

log = logging.getLogger("pairvol.pair")


class GroupDecision:
    """Votes, decisions and their consequences for the pairs of one group; ``decisions``, ``primaries`` by pair name."""

    def __init__(
        self, group: HalfGroup, decisions: Mapping[str, PairDecision], primaries: Mapping[str, PrimaryVolume]
    ) -> None:
        self._group = group
        self._decisions = decisions
        self._primaries = primaries
        identity = next(iter(group.halves.values())).identity
        self._serial, self._peer_serial = identity.serial, identity.peer_serial
        self.voting: Task[Any] | None = None
        """The task whose vote is out: whoever waits for it may give up, it does not."""

    def register(self, names: Iterable[str]) -> GroupRegister:
        """What is durable here of these pairs. Raises PairRefused while a vote is out for a part of them."""
        records = {name: self._group.halves[name].record for name in names}
        accepted = {name: record.accepted for name, record in records.items() if record.accepted is not None}
        if accepted and len(accepted) < len(records):
            raise PairRefused(Refusal.IN_DOUBT)
        decided = {name: record.decided for name, record in records.items()}
        voters = tuple(sorted((self._serial, self._peer_serial)))
        return GroupRegister(self._serial, voters, decided, accepted or None)

    async def decide(self, values: Values, check_wanted: Callable[[], None]) -> None:
        """Have all ``values`` decided by both arrays, or none. Raises PairRefused; then they may be in doubt.

        ``check_wanted`` raises PairRefused when nobody wants them any more; asked last before the vote.
        """
        halves = self._halves(values)
        states = {name: half.state for name, half in halves.items()}
        await all_of(
            self._primaries[name].forget_equal()
            for name, half in halves.items()
            if half.state is PairState.PAIR and half.role is PairRole.P_VOL
        )
        if any(half.state is not states[name] for name, half in halves.items()):
            raise PairRefused(Refusal.BUSY, "a fault came first")
        check_wanted()
        self.voting = current_task()
        try:
            for effect in self.register(values).propose(values):
                assert isinstance(effect, VoteGroup)
                await self._save_votes(effect.values)
            await self.propose(values)
        finally:
            self.voting = None

    async def ask_again(self, values: Values) -> None:
        """Propose once more what is in doubt although the link is up. Raises PairRefused when it stays so."""
        self.voting = current_task()
        try:
            await self.propose(values)
        except PairRefused as refused:
            raise PairRefused(Refusal.IN_DOUBT, str(refused)) from None
        finally:
            self.voting = None

    async def _save_votes(self, values: Values) -> None:
        def votes(records: Records) -> Records:
            return {name: replace(records[name], accepted=value) for name, value in values.items()}

        self._announce(values)
        try:
            await self._group.save(votes)
            self._recall(values)
        finally:
            self._announce(dict.fromkeys(values))

    async def propose(self, values: Values) -> None:
        """Ask the other array for its vote; this array's is durable. Raises PairRefused."""
        halves = self._halves(values)
        first = next(iter(halves.values()))
        if first.peer is None:
            raise PairRefused(Refusal.NO_VOTE, "the link went down")
        register = self.register(values)
        payload = GroupProposal(values, register.decided, self._packed_marks(values)).encode()
        try:
            reply = await first.link.request(Frame(FrameType.PROPOSE_GROUP, first.peer.ldev, payload=payload))
        except LinkDown as error:
            raise PairRefused(Refusal.NO_VOTE, str(error)) from None
        if reply.flags != Answer.DONE:
            raise PairRefused(Refusal.NO_VOTE, "the other array refuses")
        marks = decode_marks(reply.payload, values)
        for effect in register.acknowledged(self._peer_serial, values):
            if isinstance(effect, DecideGroup):
                await self.enter(effect.values, marks)
        if any(half.record.decided.epoch < values[name].epoch for name, half in halves.items()):
            raise PairRefused(Refusal.NO_VOTE, "the other array's vote does not count")

    async def enter(self, values: Values, marks: Mapping[str, bytes], void: Iterable[str] = ()) -> None:
        """Act on decided epochs: marks of all pairs first, then one record, then their copies.

        ``marks`` are the other array's differing regions; ``void`` names the pairs whose vote can never be decided.
        """
        if not values:
            return
        void = tuple(void)
        halves = self._halves(values)

        def decided(records: Records) -> Records:
            dropped = {name: replace(records[name], accepted=None) for name in void}
            return dropped | {name: decided_record(records[name], value) for name, value in values.items()}

        self._announce(values)
        for name in values:
            self._decisions[name].stop_copying()
        try:
            async with Closed([half.replicated for half in halves.values()]):
                await all_of(
                    self._decisions[name].prepare_marks(value, marks.get(name)) for name, value in values.items()
                )
                await self._group.save(decided)
                unpaired = (half for half in halves.values() if half.state is PairState.SMPL)
                await all_of(half.marks.reset(marked=False) for half in unpaired)  # as PairDecision does it
                for name, half in halves.items():
                    half.peer_suspended = values[name].state in (PairState.PSUS, PairState.PSUE)
                for half in halves.values():
                    if not half.link.up:
                        await half.suspend("the link went down while the pair changed")
        finally:
            self._recall((*values, *void))
            self._announce(dict.fromkeys(values))
        log.info("group %s: decided as one: %s", self._group.name, ", ".join(halves))
        for name, value in values.items():
            self._decisions[name].begin(value)

    async def give_vote(self, frame: Frame) -> Frame:
        """Answer a PROPOSE_GROUP. Raises RemoteProtocolError."""
        proposal = GroupProposal.decode(frame.payload)
        refused = Frame(FrameType.ANSWER, flags=Answer.REFUSED)
        if not set(proposal.values) <= set(self._group.halves):
            return refused
        async with self._group.changing(proposal.values):
            mine = self._packed_marks(proposal.values)
            try:
                voted = await self._vote_for(proposal)
                for name in proposal.values:
                    await self._decisions[name].check_met()
            except PairRefused:
                voted = False
        return Frame(FrameType.ANSWER, payload=encode_marks(mine)) if voted else refused

    async def _vote_for(self, proposal: GroupProposal) -> bool:
        """With two arrays this one's vote is the decision, whose record is the durable form of the vote."""
        values, accepted = proposal.values, False
        if any(half.peer is None for half in self._halves(values).values()):
            return False  # as in PairDecision
        register = self.register(values)
        for effect in register.proposed(self._peer_serial, values, proposal.decided):
            if isinstance(effect, VoteGroup):
                if any(values[name].state in MIRRORED and half.busy() for name, half in self._halves(values).items()):
                    return False
                await self.enter(values, proposal.marks)
                accepted = any(isinstance(each, AcceptedGroup) for each in register.voted(values))
            elif isinstance(effect, DecideGroup):
                await self.enter(effect.values, proposal.marks)
            elif isinstance(effect, AcceptedGroup):
                accepted = True
        return accepted

    def _halves(self, names: Iterable[str]) -> dict[str, PairHalf]:
        return {name: self._group.halves[name] for name in names}

    def _packed_marks(self, names: Iterable[str]) -> dict[str, bytes]:
        return {name: self._decisions[name].packed_marks() for name in names}

    def _announce(self, coming: Mapping[str, PairEpoch | None]) -> None:
        for name, value in coming.items():
            self._decisions[name].coming = value

    def _recall(self, names: Iterable[str]) -> None:
        """The pairs' own registers follow what is durable."""
        for name in names:
            self._group.halves[name].recall()


async def all_of(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Side by side; an error is raised when all have ended."""
    for ended in await gather(*coroutines, return_exceptions=True):
        if ended is not None:
            raise ended
