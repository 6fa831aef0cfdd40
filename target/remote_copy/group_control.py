"""The control plane of one consistency group at one array: its pairs are changed and met again as one (I9). [C]

Beside the pairs' own (``pair_control``), which a verb for one pair of a group still goes through. The array that holds
the P-VOLs of the pairs to be changed serialises. While it waits for the other array it holds the locks of pairs that it
leads itself and of no others, and whoever votes waits for nobody: so neither waits for the other in a circle.
"""

import logging
from asyncio import Task, create_task, current_task, gather, shield
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

from storage_model.errors import RemoteProtocolError
from storage_model.group_register import DecideGroup, Values
from storage_model.group_request import GROUP_VERBS, SWAPS, group_epochs, leader_of
from storage_model.pair import PairEpoch, PairRecord, PairRefused, PairRequest, next_epoch
from storage_model.pair_state import TRANSITIONS, PairRole, PairState, PairVerb, Refusal
from storage_model.spec.copy_frames import Answer, Frame, FrameType, PairOffer
from storage_model.spec.group_frames import decode_group_request, encode_group_request
from target.remote_copy.background_tasks import BackgroundTasks
from target.remote_copy.group_decision import GroupDecision
from target.remote_copy.half_group import Closed, GroupStore, HalfGroup
from target.remote_copy.pair_changes import DECISION_SECONDS, FORWARD_SECONDS, Within, answer_to
from target.remote_copy.pair_control import PairControl
from target.remote_copy.pair_half import MIRRORED
from target.remote_copy.pair_messages import PairTold, refusal_of, refused_frame

log = logging.getLogger("pairvol.pair")


class GroupControl:
    """Implements ``pair_control.PairGroup`` for the pairs of one group; ``controls`` are by pair name."""

    def __init__(self, name: str, controls: Mapping[str, PairControl], store: GroupStore, within: Within[int]) -> None:
        self.name = name
        self._group = HalfGroup(name, {pair: control.half for pair, control in controls.items()}, store)
        self._halves = self._group.halves
        self._controls = {pair: controls[pair] for pair in self._halves}
        self._decision = GroupDecision(
            self._group,
            {pair: control.decision for pair, control in controls.items()},
            {pair: control.primary for pair, control in controls.items()},
        )
        self._within = within
        self._tasks = BackgroundTasks(f"group {name}")
        self._heard: dict[str, PairTold] = {}
        identity = next(iter(self._halves.values())).identity
        self._serial, self._lowest_serial = identity.serial, min(identity.serial, identity.peer_serial)
        for control in self._controls.values():
            control.group = self

    # ------------------------------------------------------------------------------------------------ making a change

    def follows(self, addressed: str, request: PairRequest) -> bool:
        """True if the group's one quorum volume changes its owner and its side: all the others go with it."""
        quorum = [pair for pair, half in self._halves.items() if half.identity.quorum]
        return request.claim is not None and request.verb in SWAPS and quorum == [addressed]

    async def request(self, addressed: str, request: PairRequest) -> int:
        """Carry it out for every pair; the epoch of the one it was addressed to. Raises PairRefused."""
        if request.verb not in GROUP_VERBS:
            raise PairRefused(Refusal.BUSY, f"a group cannot {request.verb.value}")  # the SCSI side refuses it before
        records = self._group.records
        values = group_epochs(self.name, records, addressed, request, _if_allowed)
        alone = self._without_the_other(request)
        if alone or leader_of(records, values, self._lowest_serial) == self._serial:
            return await self._request_led(addressed, request, frozenset())
        task = create_task(self._forward(addressed, request, values))
        return await self._wait(task, DECISION_SECONDS + FORWARD_SECONDS)

    async def _request_led(self, addressed: str, request: PairRequest, written: frozenset[str]) -> int:
        return await self._wait(create_task(self._lead(addressed, request, written)), DECISION_SECONDS)

    async def _wait(self, task: Task[int], seconds: float) -> int:
        self._tasks.keep(task)
        try:
            return await self._within(task, seconds)
        except (TimeoutError, PairRefused) as error:
            if task is not self._decision.voting:
                task.cancel()  # nothing is voted for yet, so nothing may come of it any more
            if isinstance(error, PairRefused):
                log.info("group %s: refused: %s", self.name, error)  # who asked is not told which pair it was
                raise
            raise PairRefused(Refusal.NO_VOTE, f"{DECISION_SECONDS:g} s passed") from None

    async def _forward(self, addressed: str, request: PairRequest, values: Values) -> int:
        halves = [self._halves[pair] for pair in values]
        self._check_connected(values)
        # The S-VOLs' own writes stop first: which side has the good data must not change while the swap is decided.
        async with Closed([half.gate for half in halves]):
            self._controls[addressed].changes.check_wanted(request)
            if request.verb in SWAPS:
                await self._group.save_swap_doubt(values)
                epoch = self._halves[addressed].record.decided.epoch
                request = replace(request, expected_epoch=request.expected_epoch or epoch)  # see PairChanges
            peer = self._halves[addressed].peer
            if peer is None:
                raise PairRefused(Refusal.PEER_UNREACHABLE)
            written = [half.identity.name for half in halves if half.role is PairRole.S_VOL and half.written]
            frame = Frame(FrameType.GROUP_REQUEST, peer.ldev, payload=encode_group_request(request, written))
            asking = create_task(answer_to(frame, halves, lambda: self._group.save_no_swap_doubt(values)))
            self._tasks.keep(asking)
            reply = await shield(asking)
        if reply.flags != Answer.DONE:
            raise refusal_of(reply)
        return reply.epoch

    async def _lead(self, addressed: str, request: PairRequest, written: frozenset[str]) -> int:
        alone = self._without_the_other(request)
        led = [pair for pair, half in self._halves.items() if alone or half.register.leads]
        async with self._group.changing(led):
            if alone:
                return await self._decide_alone(addressed, request)
            self._controls[addressed].changes.check_wanted(request)
            await self._settle(led)
            await self._settle_reservations(led)
            values = self._values(addressed, request, written)
            leader_of(self._group.records, values, self._lowest_serial)
            if not set(values) <= {pair for pair in led if self._halves[pair].register.leads}:
                raise PairRefused(Refusal.BUSY)  # a P-VOL moved while the request waited
            self._check_connected(values)
            self._check_not_reserved(addressed, request, values)
            if request.verb is PairVerb.CREATE:  # which no fault can change meanwhile, as it might the values of others
                await self._check_halves(values)
            await self._decision.decide(values, lambda: self._check_now(addressed, request, values))
            return values[addressed].epoch

    def _values(self, addressed: str, request: PairRequest, written: frozenset[str]) -> dict[str, PairEpoch]:
        """Where a fence level begins, and none is asked for, it is the one that each pair has here."""

        def value(pair: str, record: PairRecord, asked: PairRequest) -> PairEpoch:
            half = self._halves[pair]
            identity = half.identity
            fence = asked.fence or identity.fence
            return next_epoch(
                record,
                replace(asked, s_vol_written=pair in written, fence=fence),
                other_serial=identity.peer_serial if request.serial == identity.serial else identity.serial,
                quorum=identity.quorum,
                p_vol_written=half.written,
            )

        return group_epochs(self.name, self._group.records, addressed, request, value)

    def _without_the_other(self, request: PairRequest) -> bool:
        """True where an operator insists: on a takeover, or on the end of the pairs while none is connected."""
        apart = not any(half.connected for half in self._halves.values())
        return request.verb is PairVerb.TAKEOVER or (request.verb is PairVerb.DELETE and request.force and apart)

    async def _decide_alone(self, addressed: str, request: PairRequest) -> int:
        """The operator's word counts as the other array's vote, as long as that cannot be had."""
        if not self._without_the_other(request):
            raise PairRefused(Refusal.BUSY, "the other array is back")
        if request.verb is PairVerb.TAKEOVER:
            for control in self._controls.values():
                control.changes.check_unreachable(request)
        values = self._values(addressed, request, frozenset())
        values = {pair: replace(value, epoch=self._halves[pair].number_alone) for pair, value in values.items()}
        self._check_not_reserved(addressed, request, values)
        log.warning("group %s: %s, without the other array: %s", self.name, request.verb.value, ", ".join(values))
        self._decision.voting = current_task()  # whoever waits for this may give up, it does not
        try:
            await self._decision.enter(values, {})
            for pair in values:
                with suppress(PairRefused):  # it is taken over; who asks for the reservations has this tried again
                    await self._controls[pair].meeting.settle_reservations()
        finally:
            self._decision.voting = None
        if request.verb is PairVerb.DELETE:
            self.tell()  # a split brain: the link may be up, but the halves are strangers
        return values[addressed].epoch

    async def _settle(self, led: Iterable[str]) -> None:
        """What it led to could not be carried out here, as a medium failed; or its vote is still out."""
        doubtful = [pair for pair in led if self._halves[pair].register.in_doubt]
        if not doubtful:
            return
        if not all(self._halves[pair].connected for pair in doubtful):
            raise PairRefused(Refusal.IN_DOUBT)
        ballot = self._ballot()
        if ballot:
            await self._decision.ask_again(ballot)
        self._decision.voting = current_task()  # what is decided so may be durable when whoever waits gives up
        try:
            for pair in doubtful:
                if pair not in ballot:
                    await self._controls[pair].decision.ask_again()
        finally:
            self._decision.voting = None

    async def _settle_reservations(self, led: Iterable[str]) -> None:
        """No table is in doubt when the pairs move. Before the values are made: a fault may come meanwhile."""
        for pair in led:
            if self._halves[pair].connected:
                await self._controls[pair].meeting.settle_reservations()

    def _check_not_reserved(self, addressed: str, request: PairRequest, pairs: Iterable[str]) -> None:
        """A claim is of the addressed volume: those that move with it keep their tables. DELETE ends every table."""
        for pair in pairs:
            asked = request if pair == addressed else replace(request, claim=None)
            self._controls[pair].changes.check_not_reserved(asked)

    async def _check_halves(self, values: Values) -> None:
        checks = (self._controls[pair].changes.check_halves(value) for pair, value in values.items())
        for pair, ended in zip(values, await gather(*checks, return_exceptions=True), strict=True):
            if isinstance(ended, PairRefused):
                raise PairRefused(ended.refusal, f"pair {pair}, so none of group {self.name}")
            if ended is not None:
                raise ended

    def _ballot(self) -> dict[str, PairEpoch]:
        """The votes that are out for several pairs as one."""
        accepted = {pair: half.record.accepted for pair, half in self._halves.items()}
        return {pair: value for pair, value in accepted.items() if value is not None and value.group}

    def _check_connected(self, pairs: Iterable[str]) -> None:
        for pair in pairs:
            self._controls[pair].changes.check_connected()

    def _check_now(self, addressed: str, request: PairRequest, values: Values) -> None:
        self._controls[addressed].changes.check_wanted(request)
        for pair, value in values.items():
            if value.state in MIRRORED and self._halves[pair].busy():
                raise PairRefused(Refusal.BUSY, f"the volume of pair {pair} is being sanitized or formatted")

    # ------------------------------------------------------------------------------------------------ the other array

    def link_opened(self, offers: Mapping[str, PairOffer]) -> None:
        """The link is up; ``offers`` are all that the other array has. It must have the same pairs in the group."""
        self._heard.clear()
        theirs = {pair for pair, offer in offers.items() if offer.group == self.name}
        alike = theirs == set(self._controls)
        if not alike:
            log.error(
                "group %s is not the same at both arrays: %s here, %s there: its pairs stay apart",
                self.name,
                ", ".join(self._controls),
                ", ".join(sorted(theirs)) or "nothing",
            )
        for pair, control in self._controls.items():
            control.link_opened(offers[pair] if alike else None)

    async def told(self, pair: str, told: PairTold) -> None:
        """PAIR_STATUS of one pair. The other array tells of all, one behind the other: compared when all are there."""
        self._heard[pair] = told
        if len(self._heard) == len(self._controls):
            heard, self._heard = self._heard, {}
            await self._compare(heard)

    def tell(self) -> None:
        """What this array knows of all its pairs."""
        for control in self._controls.values():
            control.meeting.tell()

    async def receive(self, addressed: str, frame: Frame) -> Frame:
        """Answer a PROPOSE_GROUP or a GROUP_REQUEST. Raises RemoteProtocolError."""
        if frame.type is FrameType.PROPOSE_GROUP:
            return await self._decision.give_vote(frame)
        request, written = decode_group_request(frame.payload)
        if request.serial != self._halves[addressed].identity.peer_serial or request.verb is PairVerb.TAKEOVER:
            raise RemoteProtocolError(f"a request of array {request.serial} to {request.verb.value}", 0)
        try:
            return Frame(FrameType.ANSWER, epoch=await self._request_led(addressed, request, written))
        except PairRefused as error:
            free = all(control.decision.vote_is_free for control in self._controls.values())
            return refused_frame(error, vote_is_free=free)

    async def _compare(self, told: Mapping[str, PairTold]) -> None:
        """At reconnection: adopt as one what the other array has decided, suspend alike, repeat what is in doubt."""
        async with self._group.changing(self._controls):
            agreed = [pair for pair, control in self._controls.items() if control.meeting.reconcilable(told[pair])]
            values, void = self._news({pair: told[pair].decided for pair in agreed})
            await self._decision.enter(values, {pair: each.marks for pair, each in told.items()}, void)
            undoubted = [pair for pair in agreed if self._controls[pair].meeting.ends_swap_doubt(told[pair])]
            await self._group.save_no_swap_doubt(undoubted)
            for pair in agreed:
                self._controls[pair].meeting.met(told[pair])
                half = self._halves[pair]
                if told[pair].decided.epoch == half.record.decided.epoch and told[pair].state is PairState.PSUE:
                    await half.suspend("it broke off while the arrays could not reach each other")
            if any(control.meeting.told_the_past for control in self._controls.values()):
                self.tell()
            for pair in agreed:  # in here: nothing that this half votes for may come before
                await self._controls[pair].meeting.adopt_reservations(told[pair])
        await self._resolve()

    def _news(self, told: Values) -> tuple[Values, tuple[str, ...]]:
        """What to adopt, and which votes are void."""
        ballot, void = self._ballot(), tuple[str, ...]()
        news = {
            pair: value
            for pair, value in told.items()
            if pair not in ballot and value.epoch > self._halves[pair].record.decided.epoch
        }
        if ballot and set(ballot) <= set(told):
            peer_serial = self._halves[next(iter(ballot))].identity.peer_serial
            for effect in self._decision.register(ballot).heard(peer_serial, {pair: told[pair] for pair in ballot}):
                if isinstance(effect, DecideGroup):
                    news |= effect.values
                    void = effect.void
        return news, void

    async def _resolve(self) -> None:
        """Have decided what is still in doubt, as it was voted."""
        ballot = self._ballot()
        if ballot:
            async with self._group.changing(ballot):
                try:
                    if self._ballot() == ballot and all(self._halves[pair].connected for pair in ballot):
                        await self._decision.propose(ballot)
                except PairRefused as error:
                    log.warning("group %s: epochs still in doubt: %s", self.name, error)
        for control in self._controls.values():
            await control.meeting.resolve_doubt()

    async def stop(self) -> None:
        """End the tasks of this group."""
        await self._tasks.stop()


def _if_allowed(pair: str, record: PairRecord, request: PairRequest) -> PairEpoch:
    """What Figure 4 refuses by the own volume's state needs nobody else's word."""
    outcome = TRANSITIONS[(record.decided.role_of(request.serial), record.state), request.verb]
    if isinstance(outcome, Refusal):
        raise PairRefused(outcome)
    return record.decided
