"""Publishes pair state changes over MQTT, for whoever watches. [IO]

Never in the data path: a broker that is slow, gone or wrong changes no SCSI result. What it is told is the latest
state of each pair, so that what waits for it is bounded.
"""

import asyncio
import json
import logging

import aiomqtt

from storage_model.spec.pair_cdb import PairStatus

log = logging.getLogger("pairvol.events")

STATES_LIMIT = 4096
_RETRY_SECONDS = 2.0
_ANSWER_SECONDS = 5.0
_GOODBYE_SECONDS = 2.0


class EventBus:
    """Topic ``pairvol/<array serial>/pair/<name>``: the latest state, retained, as JSON.

    A state that was not published before the next one of the same pair is not published at all.
    """

    def __init__(self, host: str, port: int, serial: str) -> None:
        self._host = host
        self._port = port
        self._serial = serial
        self._latest: dict[str, str] = {}
        self._unpublished: dict[str, str] = {}
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Connect in the background, again and again."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Disconnect; a broker that does not answer is left to find out by itself."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=_GOODBYE_SECONDS)

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
        topic = f"pairvol/{self._serial}/pair/{status.pair_name}"
        self._latest[topic] = self._unpublished[topic] = json.dumps(message)
        assert len(self._latest) <= STATES_LIMIT, "one state per pair, and pairs are as many as volumes at most"
        self._news.set()

    async def _run(self) -> None:
        told = False
        while True:
            try:
                identifier = f"pairvol-array-{self._serial}"
                async with aiomqtt.Client(
                    self._host, self._port, identifier=identifier, timeout=_ANSWER_SECONDS
                ) as client:
                    told = False
                    log.info("publishing to the MQTT broker at %s:%d", self._host, self._port)
                    self._unpublished = dict(self._latest)  # a broker that was restarted may have forgotten them
                    self._news.set()
                    await self._connected(client)
            except aiomqtt.MqttError as error:
                if not told:
                    log.warning("no MQTT broker at %s:%d (%s); events are not published", self._host, self._port, error)
                    told = True
            await asyncio.sleep(_RETRY_SECONDS)

    async def _connected(self, client: aiomqtt.Client) -> None:
        """Publish until the connection breaks; reading, though nothing comes, is how an idle client learns that."""
        sides = {asyncio.create_task(self._forward(client)), asyncio.create_task(_read(client))}
        try:
            done, _ = await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
            for side in done:
                side.result()
        finally:
            for side in sides:
                side.cancel()
            await asyncio.gather(*sides, return_exceptions=True)

    async def _forward(self, client: aiomqtt.Client) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._unpublished:
                topic, message = next(iter(self._unpublished.items()))
                await client.publish(topic, message, qos=1, retain=True)
                if self._unpublished.get(topic) == message:
                    del self._unpublished[topic]


async def _read(client: aiomqtt.Client) -> None:
    async for _ in client.messages:
        pass
