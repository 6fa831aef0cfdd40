"""The array that the guests' kernel talks to: a process in the guests' network, with a configuration file."""

import mmap
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from scripts.failover_drill.processes import ChildProcess
from tests.linux.network import HOST_ADDRESS, Network

READY_SECONDS = 60.0
TARGET = "iqn.2026-11.org.pairvol:linux"
PORTAL = f"{HOST_ADDRESS}:3260"
SECOND_PORTAL = f"{HOST_ADDRESS}:3270"
HOST_SECRET = "a-secret-of-16-b"
ARRAY_SECRET = "another-secret-1"

# LUNs
DATA, BLOCKS_4096, GROWING = 0, 1, 2
UNITS = 3
SMALL_BYTES = 64 << 20
"""The growing volume at first."""

CONFIGURATION = """
[array]
iqn = "{target}"
serial = "30097"
state_dir = "{directory}"
portals = ["{portal}"]

[[portal_groups]] # a second way to the same units, that ALUA calls slower
tag = 2
portals = ["{second_portal}"]
alua = "active/non-optimized"

[[access]] # by CHAP
initiator = "iqn.2026-11.org.example:chap"
chap_user = "host"
chap_secret_file = "{directory}/host-secret"
[[access]] # by CHAP, the array proves itself too
initiator = "iqn.2026-11.org.example:mutual"
chap_user = "host"
chap_secret_file = "{directory}/host-secret"
mutual_user = "array"
mutual_secret_file = "{directory}/array-secret"
[[access]] # one unit, to be read
initiator = "iqn.2026-11.org.example:masked"
luns = [{blocks_4096}]
read_only = true
[[access]] # not from here
initiator = "iqn.2026-11.org.example:stranger"
addresses = ["192.0.2.0/24"]
[[access]] # everybody else but the stranger
initiator = "iqn.2026-11.org.example:[!s]*"
[[access]] # the shim's own session
initiator = "iqn.2026-11.org.pairvol:*.pairvol-shim"

[[volumes]]
name = "data"
lun = {data}
size = "512MiB"
file = "data.img"

[[volumes]]
name = "blocks4096"
lun = {blocks_4096}
size = "64MiB"
file = "blocks4096.img"
block = 4096

[[volumes]]
name = "growing"
lun = {growing}
size = "{growing_size}B"
file = "growing.img"
"""


@dataclass
class LinuxArray:
    """Made by :meth:`create`; it may be killed and started again on the same files and ports."""

    network: Network
    directory: Path
    process: ChildProcess | None = None

    @classmethod
    async def create(cls, network: Network, directory: Path) -> "LinuxArray":
        array = cls(network, directory)
        for name, secret in (("host-secret", HOST_SECRET), ("array-secret", ARRAY_SECRET)):
            path = directory / name
            path.touch(0o600)
            path.write_text(secret + "\n")
        array.configure(SMALL_BYTES)
        await array.start()
        return array

    def configure(self, growing_bytes: int) -> None:
        text = CONFIGURATION.format(
            target=TARGET,
            directory=self.directory,
            portal=PORTAL,
            second_portal=SECOND_PORTAL,
            data=DATA,
            blocks_4096=BLOCKS_4096,
            growing=GROWING,
            growing_size=growing_bytes,
        )
        self._configuration.write_text(text)

    async def start(self) -> None:
        """Returns when it serves. Raises ProcessFailed."""
        command = self.network.inside(sys.executable, "-m", "target", "--config", str(self._configuration))
        self.process = await ChildProcess.start("array", command, self.directory)
        await self.process.until_ready(READY_SECONDS)

    async def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        await self.process.kill()

    def grow_to(self, size_bytes: int) -> None:
        """The growing volume gets more room, without a restart."""
        assert self.process is not None
        self.configure(size_bytes)
        os.truncate(self.file("growing"), size_bytes)
        os.kill(self.process.pid, signal.SIGHUP)

    async def start_afresh(self) -> None:
        """As new: no data, no registrations."""
        await self.stop()
        for path in self.directory.iterdir():
            if path.suffix == ".img" or ".sqlite3" in path.name:
                path.unlink()
        self.configure(SMALL_BYTES)
        await self.start()

    async def stop(self) -> None:
        if self.process is not None:
            await self.process.end()

    @property
    def log(self) -> str:
        assert self.process is not None
        return self.process.log.read_text(errors="replace")

    def file(self, name: str) -> Path:
        return self.directory / f"{name}.img"

    def allocated_bytes(self, name: str) -> int:
        """What the volume takes of the disk."""
        return self.file(name).stat().st_blocks * 512

    def flip_byte(self, name: str, within: bytes) -> int:
        """Flip a byte of the one place in the volume where ``within`` is; that place, for :meth:`flip_byte_at`."""
        with self.file(name).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as contents:
            position = contents.find(within)
            assert position >= 0, f"{within!r} is not on volume {name}"
            assert contents.find(within, position + 1) < 0, f"{within!r} is on volume {name} more than once"
        self.flip_byte_at(name, position)
        return position

    def flip_byte_at(self, name: str, position: int) -> None:
        with self.file(name).open("r+b", buffering=0) as file:
            file.seek(position)
            (byte,) = file.read(1)
            file.seek(position)
            file.write(bytes([byte ^ 0x20]))

    @property
    def _configuration(self) -> Path:
        return self.directory / "array.toml"
