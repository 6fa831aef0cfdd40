"""The MQTT broker of the heartbeat network: mosquitto when it is installed, else the embedded one."""

import asyncio
import os
import shutil
import socket
import sys
from enum import StrEnum
from pathlib import Path

from scripts.failover_drill.processes import ChildProcess, ProcessFailed

_MOSQUITTO_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"))
_POLL_INTERVAL = 0.02


class BrokerKind(StrEnum):
    """Which program plays the broker."""

    MOSQUITTO = "mosquitto"
    EMBEDDED = "embedded"


def installed_mosquitto() -> str | None:
    """The full path of mosquitto, which Debian keeps in sbin; None when it is not installed."""
    return shutil.which("mosquitto", path=_MOSQUITTO_PATH)


def free_port() -> int:
    """A loopback port that is free now; for programs that must be told one and cannot tell which they took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def start_broker(directory: Path, deadline: float, kind: BrokerKind | None = None) -> tuple[ChildProcess, int]:
    """A broker on a free loopback port; returns it and the port. ``kind`` None takes mosquitto when there is one.

    Raises ProcessFailed when it does not accept connections within ``deadline`` seconds.
    """
    mosquitto = installed_mosquitto() if kind is not BrokerKind.EMBEDDED else None
    port = free_port()
    if mosquitto is not None:
        configuration = directory / "mosquitto.conf"
        # Started as root it would become the user mosquitto, who cannot enter our private directory.
        user = "user root\n" if os.geteuid() == 0 else ""
        configuration.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n{user}")
        command = [mosquitto, "-c", str(configuration)]
    else:
        command = [sys.executable, "-m", "scripts.failover_drill.embedded_broker", str(port)]
    broker = await ChildProcess.start("broker", command, directory)
    try:
        await _accepting(broker, port, deadline)
    except BaseException:
        await broker.end()
        raise
    return broker, port


async def _accepting(broker: ChildProcess, port: int, deadline: float) -> None:
    try:
        async with asyncio.timeout(deadline):
            while not await _accepts(port):
                if not broker.running:
                    raise ProcessFailed(f"the MQTT broker ended at once:\n{broker.log_tail()}")
                await asyncio.sleep(_POLL_INTERVAL)
    except TimeoutError:
        raise ProcessFailed(f"the MQTT broker did not listen within {deadline:g} s:\n{broker.log_tail()}") from None


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
