"""A network of its own for guests and arrays: a bridge in a private network namespace, one TAP device per guest.

The namespace has no name: it lives as long as the process that holds it, and that one ends with this one, however it
ends.
"""

import asyncio
import os
import sys
from pathlib import Path

from scripts.failover_drill.processes import ROOT, ChildProcess

HOST_ADDRESS = "10.99.0.1"
"""Where the arrays listen."""
GUESTS = (1, 2)
_SETUP_SECONDS = 30.0
_COMMAND_SECONDS = 60.0


class Network:
    """Made by :meth:`start`."""

    def __init__(self, holder: ChildProcess) -> None:
        self._holder = holder

    @classmethod
    async def start(cls, directory: Path) -> "Network":
        """Raises ProcessFailed where namespaces or TAP devices are not allowed."""
        lines = ["ip link set lo up", "ip link add br0 type bridge", f"ip address add {HOST_ADDRESS}/24 dev br0"]
        lines.append("ip link set br0 up")
        for name in map(tap, GUESTS):
            lines += [f"ip tuntap add dev {name} mode tap", f"ip link set {name} master br0 up"]
        # cat ends with its standard input, which this process holds.
        script = " && ".join([*lines, "echo ready", "exec cat"])
        holder = await ChildProcess.start("network", ["unshare", "--net", "--", "sh", "-c", script], directory)
        try:
            await holder.until_ready(_SETUP_SECONDS)
        except BaseException:
            await holder.kill()
            raise
        return cls(holder)

    def inside(self, *command: str) -> list[str]:
        """The command, to be run in this network; it replaces nsenter, so that the process id is its own."""
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "--", *command]

    async def run(self, *command: str) -> str:
        """Run a command in the network, from the project's root; its output. Fails on a status other than 0."""
        process = await asyncio.create_subprocess_exec(
            *self.inside(*command), cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        try:
            async with asyncio.timeout(_COMMAND_SECONDS):
                output, _ = await process.communicate()
        except BaseException:
            process.kill()
            raise
        assert process.returncode == 0, f"{' '.join(command)}: {output.decode()}"
        return output.decode()

    async def pull_cable(self, guest: int) -> None:
        """The guest's packets vanish from now on."""
        await self.run("ip", "link", "set", tap(guest), "nomaster")

    async def plug_cable(self, guest: int) -> None:
        await self.run("ip", "link", "set", tap(guest), "master", "br0")

    async def reset_connections(self, guest: int) -> None:
        """Every TCP connection with the guest is torn down at the array's end, as by a firewall that lost its state."""
        killed = await self.run("ss", "-H", "-t", "-K", "state", "established", "dst", guest_address(guest))
        assert guest_address(guest) in killed, "no connection was there to be torn down, or this kernel cannot do it"

    async def stop(self) -> None:
        await self._holder.kill()


def tap(guest: int) -> str:
    return f"tap{guest}"


def guest_address(guest: int) -> str:
    return f"10.99.0.{10 + guest}"


def one_processor(guest: int) -> str:
    """A guest is two to three times as fast when its threads stay on one processor."""
    processors = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else [0]
    return str(processors[guest % len(processors)])
