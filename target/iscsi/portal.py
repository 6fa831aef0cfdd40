"""The network portal: listens, admits connections, and keeps the sessions of the target. [IO]"""

import asyncio
import logging
import os
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from storage_model.errors import UserError
from storage_model.nexus import ITNexus
from target.freed_memory import Trimming
from target.iscsi.access import AccessControl
from target.iscsi.admission import Admission
from target.iscsi.events import Limits, ScsiPort, TargetDescription
from target.iscsi.log_budget import LogBudget
from target.iscsi.outstanding_commands import SharedRoom
from target.iscsi.portal_groups import PortalGroup, target_addresses
from target.iscsi.serving import Serving, socket_address
from target.iscsi.session import SessionTable
from target.loopback import accept_unpaced

log = logging.getLogger("pairvol.iscsi")

RECEIVE_BUFFER_BYTES = 128 << 10
# FirstBurstLength by the connections that there are, times their CmdSN windows 4 GiB each time: the more, the less may
# come unasked. Up to the first number a write of 256 KiB comes whole, without the round trip of an R2T.
FIRST_BURSTS = ((128, 262144), (512, 65536), (4096, 8192))
# Seconds for what still runs when the portal stops; a signal has to end the array within 2. The first is for initiators
# that were asked to log out, the second for their commands, the third for what hangs even when its connection is cut.
STOP_GRACEFULLY, STOP_AT_ONCE = (1.0, 0.4, 0.2), (0.0, 1.0, 0.5)


class IscsiPortal:
    """Serves one target node on one or more addresses, each in one of its portal groups.

    ``await start("127.0.0.1:0")`` listens and answers the bound ``host:port``; it may be called again for further
    addresses. ``await stop()`` ends every session and returns when all nexus are gone.
    """

    def __init__(
        self,
        target: TargetDescription,
        scsi_port: ScsiPort,
        limits: Limits | None = None,
        access: AccessControl | None = None,
    ) -> None:
        self.target = target
        self.scsi_port = scsi_port
        self.limits = limits or Limits()
        self.access = access or AccessControl()
        # One for all connections: what arrives is copied out at once, and a connection that never logs in costs none.
        self.receive_buffer = memoryview(bytearray(RECEIVE_BUFFER_BYTES))
        self.room = SharedRoom()
        self.groups: dict[int, PortalGroup] = {}
        self.sessions: SessionTable[Serving] = SessionTable()
        self._servers: list[asyncio.Server] = []
        self._serving: set[Serving] = set()
        self._logged_in: set[Serving] = set()
        self._login_log = LogBudget()
        self._admission: Admission[Serving] = Admission(self.limits, lambda serving: serving.silent)
        self._tasks: set[asyncio.Task[None]] = set()
        self.expected: set[asyncio.Future[Any]] = set()
        """What commands wait for that run without a task."""
        self._stopping = False
        self._trimming = Trimming()

    @property
    def addresses(self) -> list[str]:
        """``host:port`` of every portal, as bound."""
        return [address for group in self.groups.values() for address in group.addresses]

    async def start(self, address: str, tag: int = 1) -> str:
        """Listen for the portal group ``tag``; raises UserError when the address is malformed or taken."""
        host, _, port = address.rpartition(":")
        if not port.isdecimal() or int(port) > 65535:
            raise UserError(f"portal {address}: not host:port")
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(
                lambda: Serving(self, tag), host.strip("[]") or None, int(port), backlog=1024, start_serving=False
            )
            accept_unpaced(server)
            await server.start_serving()
        except OSError as error:
            # asyncio wraps the system's words in its own, with the address once more; the resolver's are below 0.
            number = error.errno or 0
            reason = os.strerror(number) if number > 0 else error.strerror or str(error)
            raise UserError(f"portal {address}: cannot listen: {reason}") from None
        self._servers.append(server)
        bound = [socket_address(socket.getsockname()) for socket in server.sockets]
        self.groups.setdefault(tag, PortalGroup(tag)).addresses += bound
        return bound[0]

    def redirect(self, tag: int, address: str) -> None:
        """Send the logins of a group to ``host:port``, and ask the sessions it has to log out; "": serve them again."""
        group = self.groups.setdefault(tag, PortalGroup(tag))
        if group.redirect == address:
            return
        group.redirect = address
        log.info("portal group %d: %s", tag, f"logins go to {address}" if address else "logins are served here")
        if address:
            for serving in list(self._serving):
                if serving.portal_group_tag == tag:
                    serving.request_logout(self.limits.logout_timeout)

    def description(self, tag: int, reached: str) -> TargetDescription:
        """The target as it is seen through a portal group, by who has reached the address."""
        portals = target_addresses(self.groups.values(), tag, reached)
        return replace(self.target, tpgt=tag, portals=portals, redirect=self.groups[tag].redirect)

    def limits_of_next(self) -> Limits:
        """For a connection that comes now."""
        first_burst = next(length for most, length in FIRST_BURSTS if len(self._serving) <= most)
        if first_burst >= self.limits.first_burst_length:
            return self.limits
        return replace(self.limits, first_burst_length=first_burst)

    async def stop(self, *, gracefully: bool = False) -> None:
        """Stops listening, drops the connections, waits for their commands to end.

        ``gracefully``: initiators are asked to log out first, and have a second for it.
        """
        self._stopping = True
        for server in self._servers:
            server.close()
        for_logouts, for_commands, for_the_rest = STOP_GRACEFULLY if gracefully else STOP_AT_ONCE
        if gracefully:
            for serving in list(self._serving):
                serving.request_logout(round(for_logouts))
            await self._wait_until_over(for_logouts)
        for serving in list(self._serving):
            serving.drop("")
        await self._wait_until_over(for_commands)
        for serving in list(self._serving):
            serving.abort()
        await self._wait_until_over(for_the_rest)
        self._servers.clear()
        self._trimming.stop()

    async def _wait_until_over(self, seconds: float) -> None:
        waiting = (
            {asyncio.ensure_future(serving.over.wait()) for serving in self._serving} | self._tasks | self.expected
        )
        if waiting:
            await asyncio.wait(waiting, timeout=seconds)

    # ------------------------------------------------------------------ used by Serving

    def admit(self, serving: Serving) -> bool:
        if self._stopping:
            return False
        self._serving.add(serving)
        leaving = self._admission.enter(serving.host, serving)
        if leaving is not None:
            leaving.end("more connections that have not logged in than we allow")
            leaving.abort()
        return True

    def log_in(self, serving: Serving) -> bool:
        """False when there are too many sessions."""
        if len(self._logged_in) >= self.limits.connections:
            return False
        self._admission.leave(serving.host, serving)
        self._logged_in.add(serving)
        return True

    def may_log(self, serving: Serving) -> bool:
        """Whether a line about the end of the connection goes into the log; those of strangers are rationed."""
        if serving in self._logged_in:
            return True
        left_out = self._login_log.spend(asyncio.get_running_loop().time())
        if left_out:
            log.warning("%d lines about connections that did not log in were left out", left_out)
        return left_out is not None

    def check_access(self) -> None:
        """The access rules were replaced: sessions that they would not let in as they were are ended."""
        for serving in list(self._serving):
            serving.check_access()

    def keep(self, task: "asyncio.Task[None]") -> None:
        """Holds a reference while the task runs; asyncio itself has only a weak one."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def forget(self, serving: Serving) -> None:
        self._serving.discard(serving)
        if serving in self._logged_in:
            self._logged_in.discard(serving)
            self._trimming.session_ended()
        self._admission.leave(serving.host, serving)

    def abort_elsewhere(self, requester: Serving, luns: Collection[int]) -> None:
        for serving in self._serving - {requester}:
            serving.abort_not_running_at(luns)

    def abort_not_running_of(self, nexuses: Collection[ITNexus], lun: int) -> None:
        """A PREEMPT AND ABORT: what these nexuses have begun to send for the unit will not be executed later."""
        for serving in list(self._serving):
            if serving.nexus in nexuses:
                serving.abort_not_running_at((lun,))

    def drop_all(self, reason: str) -> None:
        for serving in list(self._serving):
            serving.end(reason)
