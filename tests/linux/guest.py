"""A Linux guest in user mode, and the steps that run in it.

Its first process is ``guest/init.sh``; from then on ``guest/agent.sh`` and this file talk in lines over the guest's
serial line, which is the kernel's standard input and output: what to run, what a step announces, how it ended.
"""

import asyncio
import contextlib
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scripts.failover_drill.processes import ROOT, ChildProcess, ProcessFailed
from tests.eventually import eventually
from tests.linux.guest_files import GuestFiles
from tests.linux.network import Network, guest_address, one_processor, tap

GUEST_SCRIPTS = ROOT / "tests" / "linux" / "guest"
BOOT_SECONDS = 90.0
STEP_SECONDS = 180.0
"""Generous: a step takes a few seconds on an idle machine."""
_POWER_OFF_SECONDS = 20.0
_MEMORY_MIB = 384
_LOG_TAIL_LINES = 60
_COMMAND_LINE_LIMIT = 4000
"""The kernel's line discipline takes 4095 characters."""

Variables = Mapping[str, object]
"""The environment of a step: names to what str() makes words of."""


class StepFailed(AssertionError):
    """A step ended with a status other than 0, or not in time; the text has the end of its log."""


@dataclass
class Step:
    """A script that runs in the guest. Its log is here while it runs."""

    guest: "Guest"
    number: int
    script: str
    log: Path
    _announced: "asyncio.Queue[str | None]" = field(default_factory=asyncio.Queue)
    _status: "asyncio.Future[int]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    async def announces(self, word: str, within: float = STEP_SECONDS) -> str:
        """Wait until the script says ``announce WORD …``; the rest of what it says. Fails when it ends before that."""
        try:
            async with asyncio.timeout(within):
                while (line := await self._announced.get()) is not None:
                    said, _, rest = line.partition(" ")
                    if said == word:
                        return rest
        except TimeoutError:
            await self._give_up()
            raise StepFailed(self._report(f"did not announce {word!r} within {within:g} s")) from None
        raise StepFailed(self._report(f"ended before it announced {word!r}"))

    async def tell(self, *words: str) -> None:
        """An order: ``told`` is true in the script, and ``hear_order`` hears it."""
        await self.guest.send("tell", str(self.number), *words)

    async def ended(self, within: float = STEP_SECONDS) -> str:
        """Wait for its good end; its log. Raises StepFailed."""
        try:
            async with asyncio.timeout(within):
                status = await asyncio.shield(self._status)
        except TimeoutError:
            await self._give_up()
            raise StepFailed(self._report(f"did not end within {within:g} s")) from None
        if status:
            raise StepFailed(self._report(f"ended with status {status}"))
        return self.text

    @property
    def text(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return self.log.read_text(errors="replace")
        return ""

    def hear(self, words: str) -> None:
        self._announced.put_nowait(words)

    def end(self, status: int) -> None:
        self._announced.put_nowait(None)
        if not self._status.done():
            self._status.set_result(status)

    async def _give_up(self) -> None:
        """What still runs of it would disturb the steps to come."""
        with contextlib.suppress(StepFailed, TimeoutError):
            await self.guest.send("kill", str(self.number))
            async with asyncio.timeout(_POWER_OFF_SECONDS):
                await asyncio.shield(self._status)

    def _report(self, what: str) -> str:
        tail = "\n".join(f"    {line}" for line in self.text.splitlines()[-_LOG_TAIL_LINES:])
        return f"{self.guest.name}: {self.script} {what}; {self.log} ends with\n{tail}"


class Guest:
    """Made by :meth:`boot`; ended by :meth:`power_off`, or with this process."""

    def __init__(self, number: int, process: ChildProcess, directory: Path) -> None:
        self.number = number
        self.name = f"guest{number}"
        self._process = process
        self._directory = directory
        self._steps: dict[int, Step] = {}
        self._started = 0
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended = False
        self._reader = asyncio.create_task(self._read_lines())

    @classmethod
    async def boot(cls, number: int, files: GuestFiles, network: Network, directory: Path) -> "Guest":
        """A guest with an address of its own in ``network``. Raises ProcessFailed."""
        name = f"guest{number}"
        (directory / name).mkdir()
        (directory / "uml").mkdir(exist_ok=True)
        command = network.inside(
            *("unshare", "--fork", "--pid", "--mount-proc", "--kill-child", "--"),
            *("taskset", "--cpu-list", one_processor(number)),
            *_memory_elsewhere(directory),
            *(str(files.kernel), *_kernel_words(number, files, directory)),
        )
        process = await ChildProcess.start(name, command, directory)
        guest = cls(number, process, directory)
        try:
            async with asyncio.timeout(BOOT_SECONDS):
                await guest._ready
        except ProcessFailed:
            await process.kill()
            raise
        except TimeoutError:
            await process.kill()
            raise ProcessFailed(f"{name} did not boot in {BOOT_SECONDS:g} s:\n{process.log_tail(30)}") from None
        return guest

    async def start(self, script: str, variables: Variables | None = None) -> Step:
        """Run ``guest/SCRIPT`` with these variables in its environment, beside whatever else runs."""
        self._started += 1
        log = self._directory / self.name / f"{self._started:02}-{Path(script).stem}.log"
        step = Step(self, self._started, script, log)
        self._steps[step.number] = step
        words = [f"{name}={value}" for name, value in (variables or {}).items()]
        await self.send("run", str(step.number), log.name, script, *words)
        return step

    async def run(self, script: str, variables: Variables | None = None, within: float = STEP_SECONDS) -> str:
        """Run a step to its good end; its log. Raises StepFailed."""
        step = await self.start(script, variables)
        return await step.ended(within)

    async def send(self, *words: str) -> None:
        line = shlex.join(words)
        assert len(line) < _COMMAND_LINE_LIMIT and "\n" not in line, "too long for the serial line"
        if self._ended:
            raise StepFailed(f"{self.name} has ended:\n{self._process.log_tail(30)}")
        await self._process.write_line(line.encode() + b"\n")

    async def power_off(self) -> None:
        """In good order if it can be had."""
        with contextlib.suppress(Exception):
            await self.send("off")
            async with asyncio.timeout(_POWER_OFF_SECONDS):
                await asyncio.shield(self._reader)
            await eventually(lambda: not self._process.running, within=_POWER_OFF_SECONDS)
        await self._process.kill()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def _read_lines(self) -> None:
        while line := await self._process.read_line():
            kind, _, rest = line.decode(errors="replace").strip().partition(" ")
            number, _, words = rest.partition(" ")
            if kind == "ready" and not self._ready.done():
                self._ready.set_result(None)
            step = self._steps.get(int(number)) if number.isdecimal() else None
            if step is not None and kind == "announce":
                step.hear(words)
            elif step is not None and kind == "end":
                step.end(int(words))
        self._ended = True
        if not self._ready.done():
            self._ready.set_exception(ProcessFailed(f"{self.name} ended at its boot:\n{self._process.log_tail(30)}"))
        for step in self._steps.values():
            step.end(125)


def _kernel_words(number: int, files: GuestFiles, directory: Path) -> list[str]:
    """The kernel command line; words it does not know become the environment of its first process."""
    name = f"guest{number}"
    settings: Variables = {
        "PAIRVOL_NAME": name,
        "PAIRVOL_ADDRESS": f"{guest_address(number)}/24",
        "PAIRVOL_GUEST": GUEST_SCRIPTS,
        "PAIRVOL_SHARE": directory / name,
        "PAIRVOL_MODULES": files.modules,
        "PAIRVOL_LAYER": files.layer,
        "PAIRVOL_ROOT": ROOT,
        "PAIRVOL_VENV": sys.prefix,
        "PAIRVOL_PYTHON": sys.base_prefix,
    }
    words = [
        *(f"mem={_MEMORY_MIB}M", f"umid={name}", f"uml_dir={directory}/uml/"),
        *("rootfstype=hostfs", "rootflags=/", "ro", "quiet", "log_buf_len=4M", "noreboot"),
        # Kernel messages to standard error, the agent's serial line on standard input and output.
        *("con=null", "con0=null,fd:2", "ssl=null", "ssl0=fd:0,fd:1"),
        f"vec0:transport=tap,ifname={tap(number)},depth=128,gro=1,mac=52:54:00:00:00:{10 + number}",
        f"init={GUEST_SCRIPTS / 'init.sh'}",
        *(f"{key}={value}" for key, value in settings.items()),
    ]
    assert not any(" " in word for word in words), f"a path with a space cannot be told to the kernel: {words}"
    return words


def _memory_elsewhere(directory: Path) -> list[str]:
    """A guest's memory is a file in /dev/shm; where that is too small, as in many containers, it goes to the disk."""
    with contextlib.suppress(OSError):
        if shutil.disk_usage("/dev/shm").free > 2 * _MEMORY_MIB << 20:
            return []
    return ["env", f"TMPDIR={directory}"]
