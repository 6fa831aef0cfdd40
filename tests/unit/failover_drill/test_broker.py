"""The broker comes up, carries retained messages and last wills, and goes; mosquitto and the embedded one alike."""

import asyncio
from pathlib import Path

import aiomqtt
import pytest

from scripts.failover_drill.broker import BrokerKind, installed_mosquitto, start_broker
from scripts.failover_drill.link_proxy import Cut, LinkProxy

DEADLINE = 30.0


@pytest.mark.parametrize("kind", BrokerKind)
async def test_a_broker_keeps_presence_and_delivers_a_last_will(kind: BrokerKind, tmp_path: Path) -> None:
    if kind is BrokerKind.MOSQUITTO and installed_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    broker, port = await start_broker(tmp_path, DEADLINE, kind)
    cable = LinkProxy(("127.0.0.1", port))
    await cable.listen()
    try:
        async with asyncio.timeout(DEADLINE), aiomqtt.Client("127.0.0.1", port) as listener:
            will = aiomqtt.Will("host-10/presence", "gone", qos=1, retain=True)
            dying = aiomqtt.Client(*cable.address, will=will)
            await dying.__aenter__()
            await dying.publish("host-10/presence", "alive", qos=1, retain=True)
            await listener.subscribe("host-10/presence", qos=1)
            messages = aiter(listener.messages)
            assert (await anext(messages)).payload == b"alive"
            cable.cut(Cut.RESET)
            assert (await anext(messages)).payload == b"gone"
            with pytest.raises(aiomqtt.MqttError):
                await anext(aiter(dying.messages))
            await dying.__aexit__(None, None, None)
    finally:
        await cable.close()
        await broker.end()
    assert not broker.running
