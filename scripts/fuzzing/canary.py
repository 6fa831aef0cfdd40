"""A well-behaved initiator beside the fuzzers: right data, in bounded time, all the time."""

import asyncio
import contextlib
import random
import time
from collections import Counter

from initiator_shim.initiator_task import ScsiOutcome
from initiator_shim.initiator_transport import IscsiSession
from initiator_shim.session_errors import CommandTimeout, SessionError, SessionLost
from scripts.fuzzing.findings import Finding
from scripts.fuzzing.live_array import CANARY, CANARY_LUN, LiveArray

BLOCK = 512
BLOCKS = 64
ANSWER_SECONDS = 10.0
_PAUSE = 0.1
_GOOD, _CHECK_CONDITION, _RESERVATION_CONFLICT = 0, 2, 0x18
_UNIT_ATTENTION, _NOT_READY = 6, 2
_TRIES = 50
_ACTIVE_GROUPS = bytes(4) + b"\0\0\0\1" + b"\0\0\0\2"


class Canary:
    """Writes numbered versions to its blocks, reads them back, logs in anew now and then.

    ``slowest`` is the longest command in seconds, ``longest_without`` the longest time that it had no session.
    """

    def __init__(self, array: LiveArray, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self.slowest = self.longest_without = 0.0
        self._array = array
        self._chance = random.Random(seed)
        # What a block may hold: one version, or two when a write's fate is not known.
        self._versions: list[set[int]] = [{0} for _ in range(BLOCKS)]
        self._next_version = 1
        self._session: IscsiSession | None = None
        self._lost_at = time.monotonic()

    async def run(self) -> None:
        """For ever; raises Finding."""
        while True:
            await self.step()
            await asyncio.sleep(_PAUSE)

    async def step(self) -> None:
        """One write and one read, or a new session."""
        try:
            if self._session is None or self._chance.random() < 0.02:
                await self._log_in_anew()
            await self._write(self._chance.randrange(BLOCKS))
            await self._read(self._chance.randrange(BLOCKS))
        except SessionLost:
            # Its target may be reset by whoever is logged in to it. What counts is to be back in time.
            self.counts["sessions lost"] += 1
            self._forget_session()

    async def check_all(self) -> None:
        """Every block, at the end."""
        for lba in range(BLOCKS):
            if self._session is None:
                await self._log_in_anew()
            await self._read(lba)

    def _forget_session(self) -> None:
        if self._session is not None:
            with contextlib.suppress(SessionError):
                self._session.close()
            self._session, self._lost_at = None, time.monotonic()

    async def close(self) -> None:
        if self._session is not None:
            with contextlib.suppress(SessionError):
                await self._session.logout()
            self._forget_session()

    async def _log_in_anew(self) -> None:
        if self._session is not None:
            await self.close()
        started = time.monotonic()
        last = ""
        while time.monotonic() - started < ANSWER_SECONDS:
            try:
                address = self._chance.choice(self._array.addresses)
                self._session = await IscsiSession.connect(
                    *address, self._array.iqn, CANARY, timeout=ANSWER_SECONDS, digests=self._chance.random() < 0.5
                )
                break
            except SessionError as error:
                last = str(error)
        if self._session is None:
            raise Finding(f"the canary could not log in within {ANSWER_SECONDS:g} s: {last}")
        self.counts["logins"] += 1
        self.longest_without = max(self.longest_without, time.monotonic() - self._lost_at)

    async def _execute(self, cdb: bytes, data_out: bytes = b"", data_in_length: int = 0) -> ScsiOutcome:
        """Until it is GOOD: others may reset the unit, or set the state of the target port groups."""
        outcome = ScsiOutcome(0)
        for _ in range(_TRIES):
            outcome = await self._timed(cdb, data_out, data_in_length)
            if outcome.status == _GOOD:
                return outcome
            key = outcome.sense[2] & 0x0F if len(outcome.sense) > 2 else -1
            if outcome.status != _CHECK_CONDITION or key not in (_UNIT_ATTENTION, _NOT_READY):
                break
            self.counts[f"sense key {key:X}h"] += 1
            if key == _NOT_READY:
                set_groups = b"\xa4\x0a" + bytes(4) + len(_ACTIVE_GROUPS).to_bytes(4, "big") + bytes(2)
                await self._timed(set_groups, _ACTIVE_GROUPS, 0)
        raise Finding(f"the canary's CDB {cdb.hex(' ')}: status {outcome.status:02X}h, sense {outcome.sense.hex(' ')}")

    async def _timed(self, cdb: bytes, data_out: bytes, data_in_length: int) -> ScsiOutcome:
        assert self._session is not None
        started = time.monotonic()
        try:
            outcome = await self._session.execute(CANARY_LUN, cdb, data_out, data_in_length, ANSWER_SECONDS)
        except CommandTimeout:
            raise Finding(f"the canary's CDB {cdb.hex(' ')} was not answered within {ANSWER_SECONDS:g} s") from None
        self.slowest = max(self.slowest, time.monotonic() - started)
        return outcome

    async def _write(self, lba: int) -> None:
        version, self._next_version = self._next_version, self._next_version + 1
        self._versions[lba].add(version)
        await self._execute(b"\x2a\0" + lba.to_bytes(4, "big") + b"\0\0\1\0", version.to_bytes(8, "big") * (BLOCK // 8))
        self._versions[lba] = {version}
        self.counts["writes"] += 1

    async def _read(self, lba: int) -> None:
        outcome = await self._execute(b"\x28\0" + lba.to_bytes(4, "big") + b"\0\0\1\0", b"", BLOCK)
        data = outcome.data_in
        version = int.from_bytes(data[:8], "big")
        if version not in self._versions[lba] or data != version.to_bytes(8, "big") * (BLOCK // 8):
            raise Finding(
                f"the canary's block {lba} holds {data[:16].hex()}…, not version {sorted(self._versions[lba])}"
            )
        self._versions[lba] = {version}
        self.counts["reads"] += 1
