"""Heartbeat and pair events over MQTT, for cluster software and people; never in the way of SCSI. [IO]

Topics, JSON payloads:

- ``pairvol/shim/NAME/presence``, retained: ``{"boot_id", "seq", "epoch", "online"}``. ``boot_id`` changes at each
  start, ``seq`` counts up with each beat, ``epoch`` is the latest that this shim has seen decided. The last will is the
  same with ``online`` false and ``seq`` null: it may prompt somebody to RESERVE, and the epoch decides who wins.
- ``pairvol/shim/NAME/event``: one message per arbitration.

Losing the broker changes no SCSI result: messages are then dropped, and the connection is tried again.
"""

import asyncio
import json
import logging
import uuid
from collections import deque

import aiomqtt

from initiator_shim.config import Address

BEAT_SECONDS = 1.0
EVENTS_MAX = 100
_RETRY_SECONDS = 1.0
_CONNECT_SECONDS = 5.0
_log = logging.getLogger(__name__)


class EventBus:
    """Run :meth:`run` as a task; :meth:`publish` may be called at any time."""

    def __init__(self, broker: Address, name: str, beat_seconds: float = BEAT_SECONDS) -> None:
        self._broker = broker
        self._beat_seconds = beat_seconds
        self._topic = f"pairvol/shim/{name}"
        self._boot_id = uuid.uuid4().hex
        self._seq = 0
        self.epoch = 0
        self._events: deque[dict[str, object]] = deque(maxlen=EVENTS_MAX)
        self._news = asyncio.Event()

    def publish(self, event: dict[str, object], epoch: int) -> None:
        """Queues an event; the oldest goes when too many wait."""
        self.epoch = max(self.epoch, epoch)
        self._events.append(event)
        self._news.set()

    async def run(self) -> None:
        """Until cancelled; a cancelled bus says goodbye instead of leaving that to its will."""
        connected = True  # so that the first failure is logged, and the ones after it are not
        while True:
            try:
                async with self._client() as client:
                    connected = True
                    _log.info("connected to the broker at %s", self._broker)
                    await self._beat(client)
            except aiomqtt.MqttError as error:
                if _cancelling():  # the goodbye failed, and its error took the place of the cancellation
                    raise asyncio.CancelledError from None
                if connected:
                    _log.warning("broker at %s: %s; trying again", self._broker, error)
                connected = False
            await asyncio.sleep(_RETRY_SECONDS)

    def _client(self) -> aiomqtt.Client:
        return aiomqtt.Client(
            self._broker.host,
            self._broker.port,
            will=aiomqtt.Will(f"{self._topic}/presence", self._presence(online=False, seq=None), qos=1, retain=True),
            timeout=_CONNECT_SECONDS,
            keepalive=max(2, round(3 * self._beat_seconds)),
        )

    async def _beat(self, client: aiomqtt.Client) -> None:
        loop = asyncio.get_running_loop()
        next_beat = loop.time()
        try:
            while True:
                if _cancelling():  # until Python 3.12 asyncio.wait_for, which aiomqtt uses, may lose a cancellation
                    raise asyncio.CancelledError
                if loop.time() >= next_beat:
                    self._seq += 1
                    await self._publish_presence(client, online=True)
                    next_beat += self._beat_seconds
                while self._events:
                    await client.publish(f"{self._topic}/event", json.dumps(self._events[0]), qos=1)
                    self._events.popleft()
                self._news.clear()
                try:
                    async with asyncio.timeout_at(next_beat):
                        await self._news.wait()
                except TimeoutError:
                    pass
        except asyncio.CancelledError:
            await self._publish_presence(client, online=False)
            raise

    async def _publish_presence(self, client: aiomqtt.Client, *, online: bool) -> None:
        presence = self._presence(online=online, seq=self._seq)
        await client.publish(f"{self._topic}/presence", presence, qos=1, retain=True)

    def _presence(self, *, online: bool, seq: int | None) -> str:
        return json.dumps({"boot_id": self._boot_id, "seq": seq, "epoch": self.epoch, "online": online})


def _cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
