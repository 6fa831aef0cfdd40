"""The array under attack: a process of its own, with volumes of every kind, and an eye on what it holds."""

import asyncio
import contextlib
import os
import re
import socket
import sys
from collections import Counter, deque
from pathlib import Path
from urllib.parse import urlsplit

from scripts.failover_drill.processes import ROOT, die_with_parent
from storage_model.errors import PairvolError

READY_SECONDS = 30.0
END_SECONDS = 5.0
PROTECTED_BYTES = 8 << 20
CHAP_USER, CHAP_SECRET = "fuzz", b"correct horse battery"
CANARY, FUZZ = "iqn.2026-11.org.example:canary", "iqn.2026-11.org.example:fuzz"
LUNS = (0, 1, 2, 3, 4, 5, 7, 8)
PAIRED_BYTES = 4 << 20
CANARY_LUN = 6
_LOG_LINES_KEPT = 200

_CONFIGURATION = """\
[array]
iqn = "iqn.2026-11.org.pairvol:fuzzed"
serial = "30097"
state_dir = "{directory}"
background_rate = "1GiB"
portals = ["127.0.0.1:0"]

[remote_copy]
listen = "127.0.0.1:{link_port}"
peer = "127.0.0.1:9"
peer_serial = "30096"

[[portal_groups]]
tag = 2
portals = ["127.0.0.1:0"]

[[access]]
initiator = "{canary}*"
luns = [6]

[[access]]
initiator = "{fuzz}-chap*"
luns = [0, 1]
chap_user = "fuzz"
chap_secret_file = "{directory}/secret"

[[access]]
initiator = "{fuzz}*"
luns = [0, 1, 2, 3, 4, 5, 7, 8]

[[volumes]]
name = "thin"
lun = 0
size = "16MiB"
file = "thin.img"

[[volumes]]
name = "full"
lun = 1
size = "8MiB"
file = "full.img"
provisioning = "full"

[[volumes]]
name = "large-blocks"
lun = 2
size = "32MiB"
file = "large-blocks.img"
block = 4096

[[volumes]]
name = "protected"
lun = 3
file = "protected.img"
write_protected = true

[[volumes]]
name = "removable"
lun = 4
size = "8MiB"
file = "removable.img"
removable = true

[[volumes]]
name = "memory"
lun = 5
size = "1MiB"

[[volumes]]
name = "encrypted"
lun = 8
size = "2MiB"
file = "encrypted.img"
block = 4096
encrypted = true

[[volumes]]
name = "canary"
lun = 6
size = "4MiB"
file = "canary.img"

[[volumes]]
name = "paired"
lun = 7
ldev = 60
size = "4MiB"
file = "paired.img"
quorum = true

[[pairs]]
name = "paired"
group = "fuzz"
volume = "paired"
fence = "never"
"""


class LiveArray:
    """Made by :meth:`start`. ``bad_lines`` are lines of its log that no peer may bring about."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.addresses: list[tuple[str, int]] = []
        self.link_address = ("", 0)
        self.iqn = ""
        self.bad_lines: list[str] = []
        self.log_levels: Counter[str] = Counter()
        self.last_lines: deque[str] = deque(maxlen=_LOG_LINES_KEPT)
        self.drop_reasons: dict[int, str] = {}
        self._process = process
        self._readers: list[asyncio.Task[None]] = []

    @classmethod
    async def start(cls, directory: Path) -> "LiveArray":
        """In ``directory``, which must be empty; raises PairvolError."""
        secret = directory / "secret"
        secret.write_bytes(CHAP_SECRET + b"\n")
        secret.chmod(0o600)
        with (directory / "protected.img").open("wb") as protected:  # nobody could fill a new one
            protected.truncate(PROTECTED_BYTES)
        configuration = directory / "array.toml"
        with socket.create_server(("127.0.0.1", 0)) as free:  # the array says where its portals are, but not its link
            link_port = free.getsockname()[1]
        names = {"directory": directory, "canary": CANARY, "fuzz": FUZZ, "link_port": link_port}
        configuration.write_text(_CONFIGURATION.format(**names))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "target", "--config", str(configuration),
            cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1"}, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True,
            preexec_fn=die_with_parent,
        )  # fmt: skip
        array = cls(process)
        array.link_address = ("127.0.0.1", link_port)
        try:
            await array._until_ready()
        except BaseException:
            await array.kill()
            raise
        return array

    async def _until_ready(self) -> None:
        assert self._process.stdout is not None and self._process.stderr is not None
        self._readers.append(asyncio.create_task(self._read_log(self._process.stderr)))
        try:
            async with asyncio.timeout(READY_SECONDS):
                while (line := (await self._process.stdout.readline()).decode().strip()) != "ready":
                    if not line:
                        raise PairvolError("the array did not start:\n" + "\n".join(self.last_lines))
                    parts = urlsplit(line)
                    address = (str(parts.hostname), int(parts.port or 0))
                    self.iqn = parts.path.split("/")[1]
                    if address not in self.addresses:
                        self.addresses.append(address)
        except TimeoutError:
            raise PairvolError("the array was not ready in time:\n" + "\n".join(self.last_lines)) from None

    async def _read_log(self, stream: asyncio.StreamReader) -> None:
        """Line by line, however long they are; only the last ones are kept."""
        rest = b""
        while data := await stream.read(1 << 16):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._log_line(line.decode(errors="replace"))
        if rest:
            self._log_line(rest.decode(errors="replace"))

    def _log_line(self, line: str) -> None:
        self.last_lines.append(line)
        found = re.match(r"\d{4}-\d\d-\d\d \S+ ([A-Z]+) \S+ ?(?:127\.0\.0\.1:(\d+))?", line)
        level = found[1] if found else "unformatted"
        self.log_levels[level] += 1
        if level not in ("INFO", "WARNING", "DEBUG"):
            self.bad_lines.append(line)
        if found and found[2] and "connection dropped: " in line:
            self.drop_reasons[int(found[2])] = line.partition("connection dropped: ")[2]

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    def resident_bytes(self) -> int:
        """VmRSS; 0 when it is gone."""
        return self._status("VmRSS") * 1024

    def _status(self, key: str) -> int:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
                if line.startswith(key + ":"):
                    return int(line.split()[1])
        return 0

    def descriptors(self) -> list[str]:
        """What each of its open file descriptors stands for."""
        directory, found = Path(f"/proc/{self._process.pid}/fd"), []
        with contextlib.suppress(OSError):
            for name in os.listdir(directory):
                with contextlib.suppress(OSError):  # closed in the meantime
                    found.append(os.readlink(directory / name))
        return found

    async def end(self) -> int:
        """SIGTERM; its exit status, or -9 when it had to be killed."""
        if self.running:
            self._process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    await self._process.wait()
        return await self.kill()

    async def kill(self) -> int:
        if self.running:
            self._process.kill()
        status = await self._process.wait()
        await asyncio.gather(*self._readers, return_exceptions=True)
        return status
