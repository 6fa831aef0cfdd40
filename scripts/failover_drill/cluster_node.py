"""A cluster node, MSCS-like, as a program of its own: ``python -m scripts.failover_drill.cluster_node SETTINGS``.

It knows its quorum disk and its data volumes through its own shim, its peer through heartbeats, and nothing else. What
decides is the answer to RESERVE: the loser of a *start* joins, the loser of a *failure* stops its applications
(¶28, ¶39), the winner of a failure takes over (¶61). Orders and events are JSON lines, see ``node_protocol``.
"""

import asyncio
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from enum import Enum
from pathlib import Path

from initiator_shim.initiator_transport import IscsiSession
from initiator_shim.session_errors import SessionError
from scripts.failover_drill.application import Application
from scripts.failover_drill.disk import CommandFailed, Disk, describe
from scripts.failover_drill.heartbeat import Heartbeat
from scripts.failover_drill.node_protocol import (
    LINE_LIMIT,
    Event,
    Fields,
    NodeSettings,
    Order,
    decode_line,
    encode_line,
)
from scripts.failover_drill.records import AcknowledgementLog, Record
from scripts.failover_drill.scenario import DATA_PAIRS, NUMBERS, QUORUM, PairedVolume, Site, initiator_name
from storage_model.errors import PairvolError
from storage_model.pair_state import PairRole, PairState
from storage_model.spec.pair_cdb import PairOut
from storage_model.spec.scsi_task import ScsiStatus

_QUORUM_ISID = bytes.fromhex("800000000001")
_DATA_ISID = bytes.fromhex("800000000002")
_MANAGEMENT_BLOCK = 1


class Part(Enum):
    """The part that the node plays in its cluster."""

    STOPPED = "stopped"
    ARBITRATING = "arbitrating"
    OWNER = "owner"
    MEMBER = "member"
    RETIRED = "retired"


def emit(event: Event, **fields: object) -> None:
    """One event for the conductor. The pipe is read all the time, so this does not block."""
    sys.stdout.buffer.write(encode_line({"event": event, "at": time.monotonic(), **fields}))
    sys.stdout.buffer.flush()


class ClusterNode:
    """One node. ``quorum`` and ``data`` are sessions of their own, so that applications do not delay arbitration."""

    def __init__(self, settings: NodeSettings, quorum: IscsiSession, data: IscsiSession) -> None:
        self.site = Site(settings.site)
        self.host = NUMBERS[self.site].host
        self._settings = settings
        self._quorum = Disk(quorum, QUORUM.lun)
        self._data = {pair.lun: Disk(data, pair.lun) for pair in DATA_PAIRS}
        self._part = Part.STOPPED
        self._armed = False
        self._renewals = 0
        self._management_sequence = 0
        # A renewal and a race never overlap: each would judge the other's reservation.
        self._quorum_lock = asyncio.Lock()
        self._log = AcknowledgementLog(Path(settings.acknowledgements))
        self._applications: dict[int, Application] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._heartbeat = Heartbeat(
            settings.broker,
            self.host,
            NUMBERS[self.site.other].host,
            settings.heartbeat_interval,
            settings.heartbeat_timeout,
            seen=lambda: emit(Event.PEER_SEEN),
            lost=lambda reason: self._spawn(self._peer_lost(reason)),
        )

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Awaitable[None]) -> None:
        """Whatever a task of the node fails with, the conductor hears of it."""
        try:
            await work
        except SessionError as error:
            await self._quorum_lost(str(error))
        except PairvolError as error:
            emit(Event.BROKEN, reason=str(error))

    # ------------------------------------------------------------------------------------------------------ arbitration

    async def _reserve(self, race: str) -> Fields:
        """RESERVE the quorum volume through the shim; its answer is the decision (Figure 5)."""
        began = time.monotonic()
        outcome = await self._quorum.reserve()
        result = {
            "race": race,
            "good": outcome.status == ScsiStatus.GOOD,
            "status": describe(outcome),
            "seconds": time.monotonic() - began,
        }
        emit(Event.RESERVE, **result)
        return result

    async def start(self, order: Fields) -> Fields:
        """Join the cluster: the winner owns the quorum pair, the loser of a start joins."""
        await _until(order["at"])
        async with self._quorum_lock:
            result = await self._reserve("start")
            self._part = Part.OWNER if result["good"] else Part.MEMBER
            self._heartbeat.decided((await self._quorum.pair_status()).epoch)
        if not result["good"]:
            emit(Event.JOINED)
        self._heartbeat.start()
        self._spawn(self._watch_quorum())
        return result

    async def _peer_lost(self, reason: str) -> None:
        """Bus device reset, then RESERVE (¶58). The winner takes over, the loser stops."""
        if self._part not in (Part.OWNER, Part.MEMBER):
            return
        emit(Event.PEER_LOST, reason=reason, part=self._part.value)
        await asyncio.sleep(self._settings.hesitation)
        async with self._quorum_lock:
            if self._part not in (Part.OWNER, Part.MEMBER):
                return
            self._part = Part.ARBITRATING
            emit(Event.RESET, response=await self._quorum.reset())
            won = (await self._reserve("failure"))["good"]
            self._part = Part.OWNER if won else Part.RETIRED
            self._armed, self._renewals = False, 0
            self._heartbeat.decided((await self._quorum.pair_status()).epoch)
        if won:
            await self._take_over()
        else:
            await self._retire("lost the race")

    async def _watch_quorum(self) -> None:
        """The owner renews, a member looks whether its path to the quorum volume still works."""
        while self._part in (Part.OWNER, Part.MEMBER, Part.ARBITRATING):
            await asyncio.sleep(self._settings.renewal_interval)
            async with self._quorum_lock:
                if self._part is Part.OWNER and not await self._renew():
                    self._part = Part.RETIRED
                    self._spawn(self._retire("no longer the owner"))
                elif self._part is Part.MEMBER:
                    await self._quorum.ready()

    async def _renew(self) -> bool:
        """RESERVE again, as MSCS does. Of a split pair a RESERVE would claim the next epoch, and undo the split: there
        the owner renews by a write, which the array refuses to anybody but the owner."""
        if self._armed:
            outcome = await self._quorum.try_write(_MANAGEMENT_BLOCK, self._management_data())
        else:
            outcome = await self._quorum.reserve()
        if outcome.status == ScsiStatus.GOOD:
            self._renewals += 1
            return True
        emit(Event.OWNERSHIP_LOST, status=describe(outcome))
        return False

    async def _quorum_lost(self, reason: str) -> None:
        """No path to the quorum volume: this node cannot take part any more, and tells its peer so."""
        if self._part is not Part.STOPPED:
            emit(Event.QUORUM_LOST, reason=reason)
        self._part = Part.RETIRED
        await self._retire("the quorum volume is out of reach")

    async def _retire(self, reason: str) -> None:
        """Stop the applications and leave the cluster (¶39)."""
        await self._stop_applications()
        emit(Event.RETIRED, reason=reason)
        await self._heartbeat.stop()

    def _management_data(self) -> bytes:
        self._management_sequence += 1
        return Record(QUORUM.p_volume, self.host, self._management_sequence).encode()

    # ------------------------------------------------------------------------------------ applications and data volumes

    async def _start_application(self, pair: PairedVolume) -> None:
        application = Application(
            pair.p_volume,
            self.host,
            self._data[pair.lun],
            self._log,
            self._settings.record_interval,
            failed=lambda volume, reason: emit(Event.APPLICATION_FAILED, volume=volume, reason=reason),
        )
        last = await application.mount()
        emit(Event.MOUNTED, volume=pair.p_volume, local=pair.number_at(self.site), last=last)
        self._applications[pair.p_volume] = application
        emit(Event.APPLICATION_STARTED, volume=pair.p_volume, first=application.start())

    async def _stop_applications(self) -> Fields:
        """All of them; the last acknowledged record of each volume."""
        running = [application for application in self._applications.values() if application.running]
        for application in running:
            await application.stop()
            emit(Event.APPLICATION_STOPPED, volume=application.volume, last=application.last_acknowledged)
        return {str(app.volume): app.last_acknowledged for app in self._applications.values()}

    async def _take_over(self) -> None:
        """Continue the applications of the other site on this site's halves of their pairs (¶61, Figure 13)."""
        for pair in DATA_PAIRS:
            if pair.home is self.site:
                continue
            try:
                await self._promote(pair)
                await self._start_application(pair)
            except CommandFailed as error:
                reason = error.refusal.text if error.refusal else str(error)
                emit(Event.TAKEOVER_REFUSED, volume=pair.p_volume, reason=reason)
        emit(Event.TAKEOVER_DONE, running=sorted(v for v, app in self._applications.items() if app.running))

    async def _promote(self, pair: PairedVolume) -> None:
        """Make the local half the P-VOL: split, then swap resync, which copies what the old P-VOL wrote since."""
        disk = self._data[pair.lun]
        status = await disk.pair_status()
        if status.role is PairRole.P_VOL:
            return
        if status.state in (PairState.COPY, PairState.PAIR):
            await disk.pair_control(PairOut.SPLIT)
            emit(Event.TAKEOVER, volume=pair.p_volume, step="split")
        await disk.pair_control(PairOut.SWAP_RESYNC)
        emit(Event.TAKEOVER, volume=pair.p_volume, step="swap resync")

    # ----------------------------------------------------------------------------------------------------------- orders

    async def manage(self, _: Fields) -> Fields:
        """Initialise the cluster management data (¶55)."""
        async with self._quorum_lock:
            await self._quorum.write(_MANAGEMENT_BLOCK, self._management_data())
        emit(Event.MANAGED)
        return {}

    async def mount(self, _: Fields) -> Fields:
        """Both nodes, also the loser of the start (¶56)."""
        await self._start_application(next(pair for pair in DATA_PAIRS if pair.home is self.site))
        return {}

    async def arm(self, _: Fields) -> Fields:
        """Split the quorum pair, so that it can decide the next race (¶57)."""
        async with self._quorum_lock:
            await self._quorum.pair_control(PairOut.SPLIT)
            self._armed = True
        emit(Event.ARMED)
        return {}

    async def quiesce(self, _: Fields) -> Fields:
        return {"last": await self._stop_applications(), "renewals": self._renewals, "part": self._part.value}

    async def write_quorum(self, _: Fields) -> Fields:
        async with self._quorum_lock:
            return {"status": describe(await self._quorum.try_write(_MANAGEMENT_BLOCK, self._management_data()))}

    async def race(self, order: Fields) -> Fields:
        await _until(order["at"])
        return await self._reserve("start")

    async def release(self, _: Fields) -> Fields:
        return {"status": describe(await self._quorum.release())}

    async def obey(self, order: Fields) -> Fields:
        """Carry out one order; the fields of its answer, ``error`` among them when it failed."""
        handlers: dict[str, Callable[[Fields], Awaitable[Fields]]] = {
            Order.START: self.start,
            Order.MANAGE: self.manage,
            Order.MOUNT: self.mount,
            Order.ARM: self.arm,
            Order.QUIESCE: self.quiesce,
            Order.WRITE_QUORUM: self.write_quorum,
            Order.RACE: self.race,
            Order.RELEASE: self.release,
        }
        try:
            return await handlers[order["order"]](order)
        except PairvolError as error:
            return {"error": str(error)}

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self._heartbeat.stop()
        self._log.close()


async def _until(at: float) -> None:
    await asyncio.sleep(max(0.0, at - time.monotonic()))


async def _orders() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=LINE_LIMIT)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def serve(settings: NodeSettings) -> None:
    """Until standard input ends, or SIGTERM."""
    serving = asyncio.current_task()
    assert serving is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
    host, port = settings.shim
    name = initiator_name(Site(settings.site))
    quorum = await IscsiSession.connect(host, port, settings.target_name, name, _QUORUM_ISID)
    data = await IscsiSession.connect(host, port, settings.target_name, name, _DATA_ISID)
    node = ClusterNode(settings, quorum, data)
    orders = await _orders()
    emit(Event.READY)
    try:
        while line := await orders.readline():
            order = decode_line(line)
            sys.stdout.buffer.write(encode_line({"answer": order["id"], **await node.obey(order)}))
            sys.stdout.buffer.flush()
    finally:
        await node.close()
        for session in (quorum, data):
            await session.logout()


def main() -> int:
    try:
        asyncio.run(serve(NodeSettings.from_json(sys.argv[1])))
    except asyncio.CancelledError:
        return 0
    except PairvolError as error:
        print(f"cluster node: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
