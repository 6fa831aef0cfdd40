"""A campaign: rude initiators side by side against one array, a canary beside them, and a verdict at the end."""

import asyncio
import contextlib
import random
import time
from collections import Counter, deque
from pathlib import Path

from scripts.fuzzing.canary import Canary
from scripts.fuzzing.episodes import EPISODES, Surroundings, learn
from scripts.fuzzing.findings import Finding
from scripts.fuzzing.live_array import LiveArray
from scripts.fuzzing.memory_trend import trend
from scripts.fuzzing.wire import HungUp

SAMPLE_SECONDS = 2.0
QUIET_SECONDS = 20.0
EPISODE_SECONDS = 120.0
MAX_FINDINGS = 20
_QUIET_STEP = 0.2
_MEBIBYTE = 1 << 20


class Campaign:
    """``findings`` is empty when the array stood it."""

    def __init__(self, seed: int, workers: int, directory: Path, progress_seconds: float = 30.0) -> None:
        self.seed = seed
        self.findings: list[str] = []
        self.samples: list[int] = []
        self.episodes: Counter[str] = Counter()
        self._workers = workers
        self._directory = directory
        self._progress_seconds = progress_seconds
        self._recent: deque[str] = deque(maxlen=4 * workers)
        self._around: Surroundings | None = None
        self._canary: Canary | None = None
        self._started = time.monotonic()
        self._enough = asyncio.Event()

    def stop(self) -> None:
        """Ends :meth:`run` early, in good order."""
        self._enough.set()

    async def run(self, minutes: float, only: str | None = None) -> None:
        """``only``: the name of one episode, ``kind:worker:number``, instead of all of them."""
        array = await LiveArray.start(self._directory)
        try:
            self._around = Surroundings(array)
            await learn(self._around)
            self._canary = Canary(array, self.seed)
            await self._canary.step()
            resting = array.descriptors()
            await self._attack(minutes, only)
            await self._aftermath(resting)
        except Finding as finding:
            self._found(str(finding))
        finally:
            if not array.running:
                self._found("the array has ended by itself")
            status = await array.end()
            if status != 0:
                self._found(f"the array ended with status {status}")
            for line in array.bad_lines[:5]:
                self._found(f"its log says: {line}")

    async def _attack(self, minutes: float, only: str | None) -> None:
        assert self._canary is not None
        if only is not None:
            kind, worker, number = only.split(":")
            await self._episode(kind, int(worker), int(number))
            return
        tasks = [asyncio.create_task(self._worker(index)) for index in range(self._workers)]
        tasks += [asyncio.create_task(self._watch_canary()), asyncio.create_task(self._watch_array())]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(minutes * 60):
                await self._enough.wait()
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result

    async def _worker(self, worker: int) -> None:
        names = [name for name, (_, weight) in EPISODES.items() for _ in range(weight)]
        choice = random.Random(f"{self.seed}:{worker}")
        number = 0
        while True:
            number += 1
            await self._episode(choice.choice(names), worker, number)

    async def _episode(self, kind: str, worker: int, number: int) -> None:
        assert self._around is not None
        name = f"{kind}:{worker}:{number}"
        self._recent.append(name)
        self.episodes[kind] += 1
        try:
            async with asyncio.timeout(EPISODE_SECONDS):
                await EPISODES[kind][0](random.Random(f"{self.seed}:{name}"), self._around)
        except HungUp:  # before it had begun: reinstated by another worker, for example
            self.episodes["ended by the array"] += 1
        except Finding as finding:
            self._found(f"{name}: {finding}")
        except TimeoutError:
            self._found(f"{name}: not over after {EPISODE_SECONDS:g} s")

    async def _watch_canary(self) -> None:
        assert self._canary is not None
        try:
            await self._canary.run()
        except Finding as finding:
            self._found(f"canary: {finding}; recent episodes: {' '.join(self._recent)}")
            self.stop()

    async def _watch_array(self) -> None:
        assert self._around is not None
        array = self._around.array
        told = time.monotonic()
        while array.running:
            self.samples.append(array.resident_bytes())
            if time.monotonic() - told >= self._progress_seconds:
                told = time.monotonic()
                print(self._progress(), flush=True)
            if array.bad_lines:
                self._found(f"recent episodes: {' '.join(self._recent)}")
                self.stop()
                return
            await asyncio.sleep(min(SAMPLE_SECONDS, self._progress_seconds))
        self._found(f"the array is gone; recent episodes: {' '.join(self._recent)}")
        self.stop()

    async def _aftermath(self, resting: list[str]) -> None:
        """Nobody is there any more: it must serve as before, and hold no more than before."""
        assert self._around is not None and self._canary is not None
        array = self._around.array
        await self._canary.check_all()
        for _ in range(int(QUIET_SECONDS / _QUIET_STEP)):
            if not _more_descriptors(array.descriptors(), resting):
                break
            await asyncio.sleep(_QUIET_STEP)
        else:
            more = _more_descriptors(array.descriptors(), resting)
            self._found(f"file descriptors are open that were not at the beginning: {_counted(more)}")
        verdict = trend(self.samples)
        if verdict is not None and not verdict.flat:
            self._found(f"its memory grows: {verdict}")
        await self._canary.close()

    def _found(self, finding: str) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(finding)
            print(f"FOUND: {finding}", flush=True)
        else:
            self.stop()

    # ------------------------------------------------------------------------------------------------ what is told

    def _progress(self) -> str:
        assert self._around is not None and self._canary is not None
        seconds = int(time.monotonic() - self._started)
        array, sent = self._around.array, self._around.sent
        return (
            f"{seconds // 60:3d}:{seconds % 60:02d}  {sum(self.episodes.values())} episodes,"
            f" {sent['commands']} commands, {sent['PDUs']} PDUs, {sent['login requests']} login requests;"
            f" {array.resident_bytes() / _MEBIBYTE:.1f} MiB, {len(array.descriptors())} descriptors;"
            f" canary: {self._canary.counts['reads']} reads, slowest {self._canary.slowest:.2f} s"
        )

    def summary(self) -> str:
        """Several lines."""
        around, canary = self._around, self._canary
        if around is None or canary is None:
            return "the campaign did not begin"
        verdict = trend(self.samples)
        lines = [
            f"episodes   {_counted(self.episodes)}",
            f"sent       {_counted(around.sent)}",
            f"answers    {_counted(around.responses)}",
            f"log lines  {_counted(around.array.log_levels)}",
            f"canary     {_counted(canary.counts)}; slowest command {canary.slowest:.2f} s,"
            f" longest without a session {canary.longest_without:.2f} s",
            f"memory     {verdict or 'too short a campaign to judge'}",
            f"findings   {len(self.findings) or 'none'}",
        ]
        return "\n".join(lines)


def _more_descriptors(now: list[str], resting: list[str]) -> Counter[str]:
    """Sockets and pipes by their number; a file may be opened when it is first needed, but once."""
    kinds = [Counter(name.partition(":")[0] for name in names) for names in (now, resting)]
    return Counter({name: count for name, count in (kinds[0] - kinds[1]).items() if kinds[0][name] > 1})


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "none"
