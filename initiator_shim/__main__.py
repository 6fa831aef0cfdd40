"""``pairvol-shim``: arguments, signals, run. [IO]"""

import argparse
import asyncio
import contextlib
import logging
import re
import secrets
import signal
import socket
import sys

from initiator_shim.arbitration import Decision
from initiator_shim.config import Address, ShimConfig, parse_address, parse_broker
from initiator_shim.control_session import ControlSession
from initiator_shim.event_bus import EventBus
from initiator_shim.initiator_chap import ChapCredentials
from initiator_shim.initiator_transport import discover
from initiator_shim.portal import DecisionListener, ShimPortal
from initiator_shim.secret_files import add_chap_arguments, chap_credentials
from initiator_shim.session_errors import SessionError
from storage_model.errors import PairvolError, UserError
from storage_model.nexus import ITNexus

_EPILOG = """\
Point the host's iSCSI initiator at --listen instead of the array. Every command passes through, but a RESERVE of a
quorum volume ends with GOOD only for the one host of both sites that the arrays agreed upon, and with RESERVATION
CONFLICT for all others.

exit status: 0 ended by SIGINT or SIGTERM, 2 wrong arguments or the array cannot be reached at the start
"""


def parse_arguments(arguments: list[str] | None = None) -> tuple[ShimConfig, bool]:
    """The configuration, and whether to be quiet. Raises UserError."""
    parser = argparse.ArgumentParser(
        prog="pairvol-shim",
        description="The filter between a cluster node's iSCSI initiator and its array.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--listen",
        default="127.0.0.1:3261",
        metavar="HOST:PORT",
        help="where the host's initiator logs in (default %(default)s; port 0 picks a free one)",
    )
    parser.add_argument(
        "--array", default="127.0.0.1:3260", metavar="HOST:PORT", help="the array's portal (default %(default)s)"
    )
    parser.add_argument(
        "--deadline",
        type=float,
        default=3.0,
        metavar="SECONDS",
        help="how long a RESERVE may be held; later it is RESERVATION CONFLICT (default %(default)s; keep it under the "
        "initiator's ping timeout)",
    )
    parser.add_argument("--broker", metavar="mqtt://HOST:PORT", help="publish heartbeat and arbitrations there")
    parser.add_argument(
        "--name",
        default=re.sub(r"[^0-9A-Za-z.-]", "-", socket.gethostname()) or "host",
        metavar="NAME",
        help="this node's name on the broker and in its initiator name (default: the host name, %(default)s)",
    )
    add_chap_arguments(parser)
    parser.add_argument("--quiet", action="store_true", help="log warnings only")
    given = parser.parse_args(arguments)
    broker = parse_broker(given.broker, "--broker") if given.broker else None
    listen, array = parse_address(given.listen, "--listen"), parse_address(given.array, "--array")
    return ShimConfig(listen, array, given.deadline, given.name, broker, chap_credentials(given)), given.quiet


async def run(config: ShimConfig) -> None:
    """Serves until SIGINT or SIGTERM. Raises UserError when it cannot start."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signal_number, stop.set)
    name = f"iqn.2026-11.org.pairvol:{config.name.lower()}.pairvol-shim"
    isid = b"\x80" + secrets.token_bytes(5)  # RFC 7143 §11.12.5, type 10b: random, another one for each start

    def new_control(target_name: str) -> ControlSession:
        return ControlSession(config.array, target_name, name, isid, config.chap)

    controls: dict[str, ControlSession] = {}
    bus = EventBus(config.broker, config.name) if config.broker else None
    portal = ShimPortal(config.array, config.deadline, controls, new_control, _publisher(bus))
    async with contextlib.AsyncExitStack() as cleanup:
        cleanup.push_async_callback(_stop_all, controls)
        for target_name in await _targets(config.array, name, config.chap):
            controls[target_name] = new_control(target_name)
            try:
                await controls[target_name].start(must_connect=True)
            except SessionError as error:
                raise UserError(f"--array {config.array}: {target_name}: {error}") from None
        address = await portal.listen(config.listen)
        cleanup.push_async_callback(portal.stop)
        if bus is not None:
            cleanup.push_async_callback(_end, asyncio.create_task(bus.run()))
        _announce(address, controls)
        await stop.wait()


async def _targets(array: Address, initiator_name: str, chap: ChapCredentials | None) -> list[str]:
    try:
        targets = await discover(array.host, array.port, initiator_name, chap=chap)
    except SessionError as error:
        raise UserError(f"--array {array}: {error}") from None
    if not targets:
        raise UserError(f"--array {array}: it shows no targets")
    return [target_name for target_name, _ in targets]


def _publisher(bus: EventBus | None) -> DecisionListener | None:
    if bus is None:
        return None

    def publish(decision: Decision, nexus: ITNexus, lun: int) -> None:
        event: dict[str, object] = {
            "event": "won" if decision.won else "refused",
            "lun": lun,
            "nexus": nexus.initiator_port_name,
            "epoch": decision.epoch,
            "reason": decision.reason,
        }
        bus.publish(event, decision.epoch)

    return publish


def _announce(address: Address, controls: dict[str, ControlSession]) -> None:
    for target_name, control in controls.items():
        for lun in control.luns:
            print(f"iscsi://{address}/{target_name}/{lun}")
    print("ready", flush=True)


async def _stop_all(controls: dict[str, ControlSession]) -> None:
    """Those included that the portal added for targets that came later."""
    await asyncio.gather(*(control.stop() for control in controls.values()))


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def main() -> int:
    """The ``pairvol-shim`` command."""
    try:
        config, quiet = parse_arguments()
        logging.basicConfig(
            stream=sys.stderr,
            level=logging.WARNING if quiet else logging.INFO,
            format="%(asctime)s pairvol-shim %(levelname)s %(message)s",
        )
        asyncio.run(run(config))
    except PairvolError as error:
        print(f"pairvol-shim: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
