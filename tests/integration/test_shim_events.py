"""The shim's heartbeat and events on a broker."""

import asyncio
import json
from pathlib import Path

import aiomqtt

from initiator_shim.config import Address
from initiator_shim.event_bus import EventBus
from scripts.failover_drill.broker import start_broker
from tests.integration.shims import plain_array, shim

PRESENCE = "pairvol/shim/node/presence"


async def presence(client: aiomqtt.Client) -> dict[str, object]:
    async for message in client.messages:
        if str(message.topic) == PRESENCE:
            assert isinstance(message.payload, bytes)
            return dict(json.loads(message.payload))
    raise AssertionError("the broker went away")


async def test_heartbeat_events_and_goodbye(tmp_path: Path) -> None:
    broker, port = await start_broker(tmp_path, 10)
    try:
        async with asyncio.timeout(20), aiomqtt.Client("127.0.0.1", port) as client:
            await client.subscribe("pairvol/shim/node/#")
            bus = EventBus(Address("127.0.0.1", port), "node", beat_seconds=0.1)
            running = asyncio.create_task(bus.run())
            first, second = await presence(client), await presence(client)
            assert first["online"] is True and first["epoch"] == 0
            assert (first["boot_id"], first["seq"], second["seq"]) == (second["boot_id"], 1, 2)
            bus.publish({"event": "won", "lun": 0}, epoch=7)
            async for message in client.messages:
                if str(message.topic) == "pairvol/shim/node/event":
                    assert isinstance(message.payload, bytes)
                    assert json.loads(message.payload) == {"event": "won", "lun": 0}
                    break
            while (await presence(client))["epoch"] != 7:
                pass
            running.cancel()
            await asyncio.wait([running])
            while (last := await presence(client))["online"]:
                pass
            assert last["epoch"] == 7
        async with asyncio.timeout(10), aiomqtt.Client("127.0.0.1", port) as late:
            await late.subscribe(PRESENCE)
            assert (await presence(late))["online"] is False  # retained
    finally:
        await broker.end()


async def test_the_will_speaks_for_a_shim_that_was_killed(tmp_path: Path) -> None:
    broker, port = await start_broker(tmp_path, 10)
    try:
        async with asyncio.timeout(30), aiomqtt.Client("127.0.0.1", port) as client, plain_array(tmp_path) as array:
            await client.subscribe(PRESENCE)
            options = ("--broker", f"mqtt://127.0.0.1:{port}")
            async with shim(tmp_path, array, *options, name="node") as running:
                alive = await presence(client)
                assert alive["online"] is True
                await running.process.kill()
                will = await presence(client)
                while will["online"]:
                    will = await presence(client)
                assert (will["boot_id"], will["seq"]) == (alive["boot_id"], None)
    finally:
        await broker.end()


async def test_without_a_broker_it_goes_on_trying(tmp_path: Path) -> None:
    bus = EventBus(Address("127.0.0.1", 1), "node")
    for number in range(200):
        bus.publish({"event": number}, number)
    running = asyncio.create_task(bus.run())
    done, _ = await asyncio.wait([running], timeout=0.3)
    assert not done
    assert len(bus._events) == 100 and bus.epoch == 199
    running.cancel()
    await asyncio.wait([running])
