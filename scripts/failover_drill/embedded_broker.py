"""A small MQTT broker for machines without mosquitto: ``python -m scripts.failover_drill.embedded_broker PORT``."""

import asyncio
import contextlib
import signal
import sys

from amqtt.broker import Broker


async def serve(port: int) -> None:
    """Until SIGINT or SIGTERM."""
    settings = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }
    broker = Broker(settings)
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await broker.start()
    await ended.wait()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
