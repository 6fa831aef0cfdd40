"""Two arrays with a consistency group between them, in one event loop: ``pair_in_memory`` with several pairs."""

import asyncio
from collections.abc import Mapping
from typing import Any

from storage_model.pair import PairRecord, PairRequest
from storage_model.pair_state import FenceLevel, PairRole, PairState, PairVerb, Refusal
from storage_model.spec.copy_frames import Frame, FrameType, PairOffer
from target.remote_copy.group_control import GroupControl
from tests.unit.pair_in_memory import Condition, End, Site, Station, Wire, refusal

GROUP = "db"


class GroupSite(Station):
    """One array; ``members`` are its halves, by pair name. One transaction takes as long as one record."""

    def __init__(self, name: str, pairs: Mapping[str, bool], fence: FenceLevel) -> None:
        super().__init__(name)
        self.members = {
            pair: Site(name, fence, quorum, pair=pair, group=GROUP, ldev=2 * number + 20)
            for number, (pair, quorum) in enumerate(pairs.items())
        }
        self.running = asyncio.Event()
        """While clear, no transaction of the group becomes durable."""
        self.running.set()
        self.fails: Exception | None = None
        self.transactions: list[dict[str, PairRecord]] = []
        self._start = 0
        self.group: GroupControl

    async def start(self) -> None:
        self.end = End(self)
        self._start += 1
        for member in self.members.values():
            member.impatient = self.impatient
            member.wire = self.wire
            member.load(self.end)
        controls = {pair: member.control for pair, member in self.members.items()}
        self.group = GroupControl(GROUP, controls, _Transactions(self, self._start), self.wait)
        for member in self.members.values():
            await member.control.start()

    def alive(self, start: int) -> bool:
        return start == self._start

    async def crash(self) -> None:
        """Nothing that is not saved yet will be."""
        self._start += 1
        for member in self.members.values():
            member.forget()
        self.wire.cut()
        await self.end_tasks()
        await self.wire.drop_handlers(self)

    # ------------------------------------------------------------------------------------------ what the wire does

    def offers(self) -> dict[str, PairOffer]:
        return {pair: member.offer for pair, member in self.members.items()}

    def link_opened(self, offers: dict[str, PairOffer]) -> None:
        self.group.link_opened(offers)

    async def link_lost(self) -> None:
        await asyncio.gather(*(member.link_lost() for member in self.members.values()))

    def serves(self, ldev: int) -> bool:
        return any(member.ldev == ldev for member in self.members.values())

    async def receive(self, frame: Frame) -> None:
        (member,) = (member for member in self.members.values() if member.ldev == frame.pair)
        await member.receive(frame)

    async def end_tasks(self) -> None:
        await self.group.stop()
        for member in self.members.values():
            await member.end_tasks()

    # ------------------------------------------------------------------------------------------ what hosts do

    async def do(self, verb: PairVerb, pair: str = "", **fields: Any) -> int:
        """For the whole group; addressed to one of its pairs."""
        control = (self.members[pair] if pair else next(iter(self.members.values()))).control
        return await control.request(PairRequest(verb, self.serial, group=True, **fields))

    @property
    def states(self) -> set[tuple[PairRole, PairState]]:
        return {(member.half.role, member.half.state) for member in self.members.values()}

    @property
    def epochs(self) -> dict[str, int]:
        return {pair: member.half.record.decided.epoch for pair, member in self.members.items()}

    @property
    def in_doubt(self) -> bool:
        return any(member.half.register.in_doubt for member in self.members.values())


class _Transactions:
    """One start's access to the records of all pairs."""

    def __init__(self, site: GroupSite, start: int) -> None:
        self._site = site
        self._start = start

    async def save_pairs(self, records: Mapping[str, PairRecord]) -> None:
        site = self._site
        await asyncio.sleep(0)
        await site.running.wait()
        if not site.alive(self._start):
            await asyncio.get_running_loop().create_future()  # never: the process is gone
        if site.fails is not None:
            raise site.fails
        site.transactions.append(dict(records))
        for pair, record in records.items():
            site.members[pair].disk.put(record)
        await asyncio.sleep(0)


class Group:
    """Both arrays, and what a test does to both at once."""

    def __init__(self, pairs: Mapping[str, bool] | None = None, fence: FenceLevel = FenceLevel.NEVER) -> None:
        pairs = pairs or {"data": False, "index": False, "log": False}
        self.a = GroupSite("a", pairs, fence)
        self.b = GroupSite("b", pairs, fence)
        self.wire = Wire(self.a, self.b)

    async def start(self) -> None:
        await self.a.start()
        await self.b.start()
        await self.connect()

    async def crash_amid(self, site: GroupSite, verb: PairVerb, turns: int) -> Refusal | BaseException | None:
        """``verb``, asked of B, is so many turns of the loop old when ``site`` crashes; how it ended for who asked."""
        asking = asyncio.create_task(refusal(self.b.do(verb)))
        for _ in range(turns):
            await asyncio.sleep(0)
        await site.crash()
        self.a.impatient.set()
        self.b.impatient.set()
        (end,) = await asyncio.gather(asking, return_exceptions=True)  # cancelled with the array that was asked
        return end

    async def connect(self) -> None:
        await self.wire.connect()
        await self.quiet()

    async def quiet(self) -> None:
        for _ in range(800):
            await asyncio.sleep(0)

    async def mirror(self) -> None:
        """A has all P-VOLs, in PAIR."""
        for member in self.a.members.values():
            await member.do(PairVerb.CREATE)
        await self.until(PairState.PAIR)

    async def suspend(self) -> None:
        await self.mirror()
        await self.a.do(PairVerb.SPLIT)
        await self.until(PairState.PSUS)

    async def until(self, state: PairState) -> None:
        await self.quiet()
        assert {each for site in (self.a, self.b) for _, each in site.states} == {state}

    def check_p_vols(self, site: GroupSite) -> None:
        other = self.b if site is self.a else self.a
        assert {role for role, _ in site.states} == {PairRole.P_VOL}
        assert {role for role, _ in other.states} == {PairRole.S_VOL}

    def check_one_side(self) -> None:
        """I9: at either array the pairs are all as they were, or all changed; and both arrays agree in the end."""
        for site in (self.a, self.b):
            assert len({role for role, _ in site.states}) == 1
            assert len(set(site.epochs.values())) == 1
        assert self.a.epochs == self.b.epochs

    async def stop(self) -> None:
        for site in (self.a, self.b):
            site.running.set()
            site.fails = None
            for member in site.members.values():
                member.disk.running.set()
                member.disk.volume.hold.set()
                member.disk.fails = None
        await self.quiet()
        await self.wire.stop()
        for pair in self.a.members:  # I1: one value per epoch, in all that was ever durable at either array
            values: dict[int, Any] = {}
            for site in (self.a, self.b):
                for record in site.members[pair].disk.records:
                    assert values.setdefault(record.decided.epoch, record.decided) == record.decided


def answers_group_proposal(group: Group) -> Condition:
    """The ANSWER to the last PROPOSE_GROUP."""

    def condition(frame: Frame) -> bool:
        proposals = [each.request for each in group.wire.carried if each.type is FrameType.PROPOSE_GROUP]
        return frame.type is FrameType.ANSWER and frame.request in proposals[-1:] and bool(frame.payload)

    return condition
