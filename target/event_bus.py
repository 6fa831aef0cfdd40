"""Publishes pair state changes over MQTT, for whoever watches. [IO]

Never in the data path: a broker that is slow, gone or wrong changes no SCSI result; messages that do not fit into the
queue are dropped and counted in the log.
"""

import asyncio
import json
import logging

import aiomqtt

from storage_model.spec.pair_cdb import PairStatus

log = logging.getLogger("pairvol.events")

QUEUE_LIMIT = 256
_RETRY_SECONDS = 2.0


class EventBus:
    """Topic ``pairvol/<array serial>/pair/<name>``: the latest state, retained, as JSON."""

    def __init__(self, host: str, port: int, serial: str) -> None:
        self._host = host
        self._port = port
        self._serial = serial
        self._queue: asyncio.Queue[tuple[str, str]] = asyncio.Queue(QUEUE_LIMIT)
        self._task: asyncio.Task[None] | None = None
        self._dropped = 0

    def start(self) -> None:
        """Connect in the background, again and again."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Disconnect."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def publish(self, status: PairStatus) -> None:
        """Tell the world; never waits."""
        message = {
            "pair": status.pair_name,
            "role": status.role.label,
            "state": status.state.name,
            "epoch": status.epoch,
            "owner": status.owner.initiator_name if status.owner else None,
            "owner_array": status.owner_serial or None,
        }
        try:
            self._queue.put_nowait((f"pairvol/{self._serial}/pair/{status.pair_name}", json.dumps(message)))
        except asyncio.QueueFull:
            self._dropped += 1

    async def _run(self) -> None:
        told = False
        while True:
            try:
                async with aiomqtt.Client(self._host, self._port, identifier=f"pairvol-array-{self._serial}") as client:
                    told = False
                    await self._forward(client)
            except aiomqtt.MqttError as error:
                if not told:
                    log.warning("no MQTT broker at %s:%d (%s); events are not published", self._host, self._port, error)
                    told = True
                await asyncio.sleep(_RETRY_SECONDS)

    async def _forward(self, client: aiomqtt.Client) -> None:
        while True:
            topic, message = await self._queue.get()
            if self._dropped:
                log.warning("%d events were dropped while the broker was away", self._dropped)
                self._dropped = 0
            await client.publish(topic, message, qos=1, retain=True)
