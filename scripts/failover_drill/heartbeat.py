"""The heartbeat network (50) as a node sees it: it beats with the project's event bus, and watches its peer's beats.

Silence, or the peer's last will, tells that the peer is lost. Both only *trigger* arbitration: the epoch at the arrays
decides it.
"""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress

import aiomqtt

from initiator_shim.config import Address
from initiator_shim.event_bus import EventBus

_CONNECT_SECONDS = 1.0
_MQTT_KEEPALIVE = 2
_QUEUE_MAX = 100
_FAREWELL_SECONDS = 0.5
_FAREWELL_ATTEMPTS = 3


def bus_name(host: int) -> str:
    """The name under which a host beats."""
    return f"host-{host}"


class PresenceWatch:
    """Judges a peer by what it publishes; pure but for ``now``, the monotonic time of each call.

    ``receive`` and ``check`` return None, or why the peer counts as lost, which they say once.
    """

    def __init__(self, timeout: float) -> None:
        self.seen = False
        self._timeout = timeout
        self._boot_id: str | None = None
        self._heard_at = 0.0
        self._over = False

    def receive(self, payload: bytes, retained: bool, now: float) -> str | None:
        """A presence message of the peer."""
        try:
            presence = json.loads(payload)
            boot_id, sequence, online = str(presence["boot_id"]), presence["seq"], presence["online"]
        except (ValueError, KeyError, TypeError):
            return None
        if online and not retained:  # what the broker kept tells nothing of the peer's life now
            self.seen, self._boot_id, self._heard_at = True, boot_id, now
        elif not online and boot_id == self._boot_id:  # a will left over from an earlier life says nothing of this one
            return self._lost("its last will arrived" if sequence is None else "it left the cluster")
        return None

    def check(self, now: float) -> str | None:
        """Has the peer been silent for too long?"""
        silence = now - self._heard_at
        return self._lost(f"no heartbeat for {silence:.1f} s") if self.seen and silence > self._timeout else None

    def _lost(self, reason: str) -> str | None:
        if self._over:
            return None
        self._over = True
        return reason


class Heartbeat:
    """``seen`` is called once, at the peer's first sign of life; ``lost`` once, with the reason, when it ends."""

    def __init__(
        self,
        broker: tuple[str, int],
        host: int,
        peer: int,
        interval: float,
        timeout: float,
        seen: Callable[[], None],
        lost: Callable[[str], None],
    ) -> None:
        self._broker = broker
        self._bus = EventBus(Address(*broker), bus_name(host), interval)
        self._peer_topic = f"pairvol/shim/{bus_name(peer)}/presence"
        self._interval = interval
        self._watch = PresenceWatch(timeout)
        self._seen, self._lost = seen, lost
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Beat and listen from now on; whoever has not been heard yet is not missed."""
        work = (self._bus.run(), self._listen(), self._watch_silence())
        self._tasks = [asyncio.create_task(coroutine) for coroutine in work]

    def decided(self, epoch: int) -> None:
        """The epoch that the next beats tell."""
        self._bus.epoch = max(self._bus.epoch, epoch)

    async def stop(self) -> None:
        """Leave: the peer hears so, unless the network is cut."""
        # More than once: until Python 3.12 asyncio.wait_for, which aiomqtt awaits acknowledgements with, loses a
        # cancellation that comes in the same moment as what it waits for.
        for _ in range(_FAREWELL_ATTEMPTS):
            living = [task for task in self._tasks if not task.done()]
            for task in living:
                task.cancel()
            if living:
                await asyncio.wait(living, timeout=_FAREWELL_SECONDS)

    async def _listen(self) -> None:
        """Connect for as long as it takes; the loss of the broker is no more than silence."""
        while True:
            with suppress(aiomqtt.MqttError):
                await self._listen_once()
            await asyncio.sleep(self._interval)

    async def _listen_once(self) -> None:
        async with aiomqtt.Client(
            *self._broker,
            timeout=_CONNECT_SECONDS,
            keepalive=_MQTT_KEEPALIVE,
            max_queued_incoming_messages=_QUEUE_MAX,
        ) as client:
            await client.subscribe(self._peer_topic, qos=1)
            async for message in client.messages:
                payload = message.payload if isinstance(message.payload, bytes) else b""
                first = not self._watch.seen
                self._report(self._watch.receive(payload, message.retain, time.monotonic()))
                if first and self._watch.seen:
                    self._seen()

    async def _watch_silence(self) -> None:
        while True:
            await asyncio.sleep(self._interval / 2)
            self._report(self._watch.check(time.monotonic()))

    def _report(self, reason: str | None) -> None:
        if reason is not None:
            self._lost(reason)
