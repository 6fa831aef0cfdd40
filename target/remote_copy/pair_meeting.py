"""How the two halves of a pair meet when the link is open: what each tells the other, and what it makes of it. [C]

Also of use to a consistency group, whose pairs meet as one (``group_control``).
"""

import logging
from collections.abc import Callable

from storage_model.pair import PairRefused
from storage_model.pair_state import PairState
from storage_model.spec.copy_frames import Frame, FrameType, PairOffer, ToldFlag, encode_parts
from target.remote_copy.pair_decision import PairDecision
from target.remote_copy.pair_half import PairHalf
from target.remote_copy.pair_messages import PairTold
from target.remote_copy.pair_reservations import PairReservations

log = logging.getLogger("pairvol.pair")


class PairMeeting:
    """``offer`` is what the other array says of its half while the link is up, if it has one; set by ``pair_control``.

    ``resolved`` is called when what was in doubt may be decided by now.
    """

    def __init__(
        self,
        half: PairHalf,
        decision: PairDecision,
        reservations: PairReservations | None,
        resolved: Callable[[], None],
    ) -> None:
        self._half = half
        self._decision = decision
        self._reservations = reservations
        self._resolved = resolved
        self.offer: PairOffer | None = None
        self._told = half.record.decided.epoch, half.state, b"", True  # in the last PAIR_STATUS

    def tell(self) -> None:
        """Tell the other array, if it is there, what is known by now. Of a group it waits for every pair's."""
        if self.offer is not None:
            self._tell(self.offer)

    def _tell(self, offer: PairOffer) -> None:
        """PAIR_STATUS; its flags say that this outdated half has data of its own, and whether the vote is free."""
        half = self._half
        decided = half.record.decided
        parts, table = [decided.encode().encode(), self._decision.packed_marks()], b""
        if self._reservations is not None and offer.reservations:
            table = self._reservations.told()
            parts.append(table)
        free = self._decision.vote_is_free
        self._told = decided.epoch, half.state, table, free
        flags = ToldFlag.WRITTEN if half.written else ToldFlag.NONE
        flags |= ToldFlag.VOTE_IS_FREE if free else ToldFlag.NONE
        half.link.send(
            Frame(FrameType.PAIR_STATUS, offer.ldev, length_bytes=half.state, flags=flags, payload=encode_parts(*parts))
        )

    def _tell_again(self) -> None:
        if self.offer is not None and self.told_the_past:
            self._tell(self.offer)

    @property
    def told_the_past(self) -> bool:
        """True when, as the link opened, an epoch or a suspension was yet to become durable, or a vote that failed to,
        or this array, which an operator's word lets go on alone, has changed the table of reservations since."""
        epoch, state, table, free = self._told
        half = self._half
        decided = half.record.decided
        suspended = half.state is PairState.PSUE and state is not PairState.PSUE
        alone = decided.outdated == half.identity.peer_serial
        changed = alone and self._reservations is not None and table not in (b"", self._reservations.told())
        return epoch < decided.epoch or suspended or changed or (self._decision.vote_is_free and not free)

    async def compare(self, told: PairTold) -> None:
        """At reconnection: adopt what the other array knows to be decided, repeat what is in doubt, suspend alike."""
        half = self._half
        async with half.changing:
            await half.gate.close()
            try:
                if not self.reconcilable(told):
                    self._tell_again()
                    return
                await self._decision.carry_out(half.register.heard_decided(told.decided), told.marks)
                if told.decided.epoch == half.record.decided.epoch and told.state is PairState.PSUE:
                    await half.suspend("it broke off while the arrays could not reach each other")
                if self.ends_swap_doubt(told):
                    await half.save_no_swap_doubt()
                self.met(told)
                self._tell_again()
                await self.adopt_reservations(told)
                doubtful = half.register.accepted
                if doubtful is not None and half.register.reconnected(half.identity.peer_serial):
                    await self._decision.propose(doubtful)
                await self.settle_reservations()
            except PairRefused as error:
                log.warning("pair %s: still in doubt: %s", half.identity.name, error)
            finally:
                half.gate.open()
        self._resolved()

    def ends_swap_doubt(self, told: PairTold) -> bool:
        """True if nothing comes any more of a swap that was asked for over an earlier connection."""
        return told.vote_is_free and told.decided == self._half.record.decided

    def met(self, told: PairTold) -> None:
        """This half agrees with what the other array has told: they are connected."""
        self._half.peer_suspended = told.state in (PairState.PSUS, PairState.PSUE)
        self._half.peer = self.offer

    def reconcilable(self, told: PairTold) -> bool:
        """False when both arrays went on alone, each on an operator's word: nothing is merged, and nothing mirrored.

        Whichever has the higher number: who was promoted at either array serves hosts, and is not demoted behind them.
        """
        half = self._half
        mine, decided = half.record.decided, told.decided
        left_behind = mine.outdated == half.identity.peer_serial
        half.split_brain = left_behind and decided.epoch <= mine.epoch and told.written
        both_by_force = left_behind and decided.outdated == half.identity.serial
        if not both_by_force and (decided.epoch != mine.epoch or decided == mine):
            return True
        half.split_brain, half.peer = True, None  # they may have met, before this was durable here and told
        half.heard_apart = max(half.heard_apart, decided.epoch)
        log.error(
            "pair %s: split brain: both arrays changed it by force, epoch %d here and %d there. pairctl delete --force"
            " at an array that has the pair ends it at both, the data stay; then create at the array that has the good"
            " data",
            half.identity.name,
            mine.epoch,
            decided.epoch,
        )
        return False

    async def adopt_reservations(self, told: PairTold) -> None:
        """The later table counts at both arrays; waits for nobody else. With ``half.changing`` held."""
        if self._reservations is not None and told.reservations:
            await self._reservations.adopt(told.reservations, told.decided.epoch)

    async def settle_reservations(self) -> None:
        """Have decided what this array voted for: whoever stops to lead the pair has no vote out. Raises PairRefused.

        With ``half.changing`` held; may wait for the other array, if this one leads.
        """
        if self._reservations is not None:
            await self._reservations.settle()

    async def resolve_doubt(self) -> None:
        """Connected again: have decided what this array voted for, for this pair alone; give up what is unwanted."""
        half = self._half
        async with half.changing:
            await half.gate.close()
            try:
                doubtful = half.register.accepted
                alone = doubtful is not None and not doubtful.group
                if doubtful is not None and alone and half.connected and half.register.leads:
                    await self._decision.propose(doubtful)
                await self.settle_reservations()
            except PairRefused as error:
                log.warning("pair %s: still in doubt: %s", half.identity.name, error)
            finally:
                half.gate.open()
        self._resolved()
