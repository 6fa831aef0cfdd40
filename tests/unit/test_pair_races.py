"""Seeded races: hosts claim, release and write at both arrays while the wire breaks and arrays crash.

After every step: one value per epoch (I1), GOOD only for what is decided (I2), no second host told GOOD while the first
one has no reason to doubt (I3). At the end, with everything whole again: both arrays agree, and every acknowledged
write is read at the P-VOL, and is on both media (I4). A seed that fails is repeated with ``-k "[SEED]"``.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Coroutine

import pytest

from storage_model.errors import CheckCondition
from storage_model.pair import PairRefused
from storage_model.pair_state import FenceLevel, PairRole, PairState, PairVerb
from storage_model.volume import VolumeError
from tests.unit.pair_in_memory import Pair, Site

STEPS = 30
LBAS = (0, 1, 200, 900)


class Race:
    """One seed's story."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.pair = Pair(self.random.choice([FenceLevel.NEVER, FenceLevel.DATA]))
        self.told: list[str] = []
        self.believers: dict[tuple[str, str], bool] = {}  # told GOOD last; True once the pair may have been armed since
        self.possible: dict[int, set[str]] = {lba: {""} for lba in LBAS}
        self.tasks: set[asyncio.Task[None]] = set()
        self.under_way: set[str] = set()
        self.split_in_doubt = False
        self.number = 0

    async def run(self) -> None:
        pair = self.pair
        await pair.start()
        await pair.arm()
        actions: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (8, self.claim),
            (8, self.write),
            (3, self.release),
            (3, self.split),
            (3, self.break_wire),
            (4, self.mend),
            (1, self.crash),
            (1, self.recover),
            (2, self.lose_patience),
        ]
        weights = [weight for weight, _ in actions]
        for _ in range(STEPS):
            (action,) = self.random.choices([action for _, action in actions], weights)
            await action()
            for _ in range(self.random.choice([0, 1, 2, 5, 20, 100])):
                await asyncio.sleep(0)
            pair.check_agreement()
        await self.end()

    def site(self) -> Site:
        return self.random.choice([self.pair.a, self.pair.b])

    def spawn(self, story: Coroutine[None, None, None], name: str | None = None) -> None:
        """Hosts do not wait for each other."""
        self.tasks.add(asyncio.create_task(story, name=name))

    # ---- what hosts do

    async def claim(self) -> None:
        site, host = self.site(), self.random.choice(["one", "two"])
        if not self.busy(site, host):
            self.spawn(self.claims(site, host), f"{site.name} {host}")

    def busy(self, site: Site, host: str) -> bool:
        """A host has one RESERVE or RELEASE under way, not two."""
        return any(task.get_name() == f"{site.name} {host}" and not task.done() for task in self.tasks)

    async def claims(self, site: Site, host: str) -> None:
        """As the shim: status, verb with the epoch that was read, and WITHDRAW of a claim that lost."""
        me = (site.name, host)
        control = site.control
        try:
            await site.claim(host, epoch=control.status().epoch)
        except (PairRefused, VolumeError) as error:
            self.told.append(f"{me} lost: {error}")
            self.believers.pop(me, None)
            await control.withdraw(site.nexus(host))
            return
        if control is not site.control:
            return  # crashed meanwhile: the session is gone, and the host hears nothing
        self.told.append(f"{me} GOOD, epoch {site.half.record.decided.epoch}")
        decided = site.half.record.decided
        assert decided.owned_by(site.serial, site.nexus(host)), f"I2: GOOD, but {decided}: {self.told}"
        for other, doubts in self.believers.items():
            assert other == me or doubts, f"I3: {me} and {other} both believe: {self.told}"
        self.believers = {me: self.split_in_doubt}

    async def release(self) -> None:
        site, host = self.site(), self.random.choice(["one", "two"])
        if self.busy(site, host):
            return
        self.told.append(f"{site.name} {host} releases")
        self.believers.pop((site.name, host), None)
        self.spawn(site.control.released(site.nexus(host)), f"{site.name} {host}")

    async def write(self) -> None:
        site, lba = self.site(), self.random.choice(LBAS)
        self.number += 1
        text = f"{self.number} by {site.name}"
        earlier = self.possible[lba] - self.under_way  # of two writes that overlap, either may be the last
        self.possible[lba] = {*self.possible[lba], text}
        self.under_way.add(text)
        host = self.random.choice(["one", "two"])
        self.spawn(self.writes(site, lba, text, host, earlier))
        if self.random.random() < 0.7:
            await asyncio.wait(self.tasks, timeout=0.2)

    async def writes(self, site: Site, lba: int, text: str, host: str, earlier: set[str]) -> None:
        control = site.control
        try:
            good = await site.write(lba, text, host)
        except (CheckCondition, VolumeError):
            return  # it may be there, or not, or come back with a copy
        finally:
            self.under_way.discard(text)
        if not good:
            self.possible[lba].discard(text)
        elif control is site.control:
            self.told.append(f"write {text!r} acknowledged")
            self.possible[lba] -= earlier

    # ---- what operators and misfortune do

    async def split(self) -> None:
        self.told.append("split")
        self.believers = dict.fromkeys(self.believers, True)
        self.spawn(self.splits(self.site()))

    async def splits(self, site: Site) -> None:
        self.split_in_doubt = True
        try:
            await site.do(PairVerb.SPLIT)
        except (PairRefused, VolumeError):
            pass
        else:
            self.split_in_doubt = False
        self.believers = dict.fromkeys(self.believers, True)

    async def break_wire(self) -> None:
        self.told.append("cut")
        count = iter(range(self.random.randrange(6)))
        self.pair.wire.cut_at(lambda frame: next(count, None) is None, delivered=self.random.random() < 0.5)

    async def mend(self) -> None:
        self.told.append("mend")
        await self.pair.wire.connect()

    async def lose_patience(self) -> None:
        site = self.site()
        site.impatient.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        site.impatient.clear()

    async def crash(self) -> None:
        site = self.site()
        self.told.append(f"crash of {site.name}")
        for task in self.tasks:
            task.cancel()  # the sessions of both arrays' hosts, for simplicity
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks.clear()
        await site.crash()
        await site.start()

    async def recover(self) -> None:
        await self.pair.connect()
        if self.pair.p_vol.half.state is PairState.PSUE:
            self.told.append("recover")
            with contextlib.suppress(PairRefused, AssertionError):
                await asyncio.wait_for(self.pair.recover(), 5)

    # ---- what must be true when everything is whole again

    async def end(self) -> None:
        pair = self.pair
        await self.mend()
        await pair.quiet()
        for site in (pair.a, pair.b):
            site.impatient.set()
        await pair.quiet()
        for task in self.tasks:
            assert task.done()
            await task
        for site in (pair.a, pair.b):
            site.impatient.clear()
        await pair.quiet()
        a, b = pair.a.half, pair.b.half
        assert a.record.decided == b.record.decided, self.told
        assert not a.register.in_doubt and not b.register.in_doubt, self.told
        if a.state is PairState.PSUE or b.state is PairState.PSUE:
            await pair.recover()
        elif a.state is PairState.PSUS:
            await pair.p_vol.do(PairVerb.RESYNC)
        await pair.until(PairState.PAIR)
        assert {a.role, b.role} == {PairRole.P_VOL, PairRole.S_VOL}
        for lba in LBAS:
            value = await pair.p_vol.read(lba)
            assert value in self.possible[lba], f"I4: {value!r}, not one of {self.possible[lba]}: {self.told}"
            assert await pair.a.medium(lba) == await pair.b.medium(lba) == value
        await pair.stop()


@pytest.mark.parametrize("seed", range(60))
async def test_race(seed: int) -> None:
    await asyncio.wait_for(Race(seed).run(), 60)
