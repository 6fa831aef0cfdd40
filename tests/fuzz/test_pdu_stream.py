"""Streams of PDUs, damaged and cut anywhere, into a connection with a real device server behind it.

What comes out must be PDUs that RFC 7143 knows, what is kept must be bounded, and nothing raises.
"""

import asyncio
import random
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.fuzzing.pdu_streams import StreamState, stream_bytes
from storage_model.spec.iscsi_pdu import DataInPdu, NopInPdu, NopOutPdu, Pdu, R2TPdu, TextResponsePdu, decode_pdu
from storage_model.spec.iscsi_stream import PduStream, encode_pdu
from storage_model.spec.scsi_task import TaskFunction
from storage_model.volume import Buffer
from target.iscsi.connection import Connection, Phase
from target.iscsi.events import (
    Event,
    Limits,
    LogoutReceived,
    TaskManagementReceived,
)
from target.iscsi.outstanding_commands import Command
from target.scsi.task import TaskOutcome
from tests.fuzz.units_of_every_kind import LUNS, NEXUSES, EveryKind
from tests.iscsi_driver import TARGET, Driver

LIMITS = Limits(queue_depth=16, data_in=1 << 20, data_out=1 << 20, immediate_commands=4, task_management=4)
TERMS = st.fixed_dictionaries(
    {
        "HeaderDigest": st.sampled_from(("None", "CRC32C")),
        "DataDigest": st.sampled_from(("None", "CRC32C")),
        "InitialR2T": st.sampled_from(("Yes", "No")),
        "ImmediateData": st.sampled_from(("Yes", "No")),
        "MaxRecvDataSegmentLength": st.sampled_from(("512", "8192", "262144")),
        "MaxBurstLength": st.sampled_from(("512", "65536")),
        "FirstBurstLength": st.sampled_from(("512", "65536")),
    }
)


class Wire:
    """A connection that has logged in, and the portal's part: runs what the events ask for."""

    def __init__(self, terms: dict[str, str], slow: float, chance: random.Random) -> None:
        driver = Driver(limits=LIMITS, target=TARGET)
        driver.cmd_sn = 1
        driver.login(**terms)
        self.connection: Connection = driver.connection
        self.digests = driver.header_digest, driver.data_digest
        self.segment_length = int(terms["MaxRecvDataSegmentLength"])
        self.every = EveryKind()
        self.answers: list[Pdu] = []
        self.held: list[Command] = []
        self._slow = slow
        self._chance = chance
        self._stream = PduStream(1 << 24)
        self._stream.header_digest, self._stream.data_digest = self.digests

    async def receive(self, data: bytes) -> None:
        await self._do(self.connection.receive_data(data, 0.0))

    async def _do(self, events: list[Event]) -> None:
        while events:
            for event in events:
                await self._one(event)
            self._take_answers()
            events = self.connection.next_events()
        self._take_answers()

    async def _one(self, event: Event) -> None:
        match event:
            case Command():
                if self._chance.random() < self._slow:
                    self.held.append(event)
                else:
                    await self.finish(event)
            case TaskManagementReceived():
                for held in self.held:
                    held.task.aborted = True
                for held in self.held:
                    self.connection.complete(held, await self._outcome(held))
                self.held.clear()
                function = TaskFunction(event.function)
                response = await self.every.server.manage(NEXUSES[0], function, event.lun, event.referenced_task_tag)
                self.connection.task_management_done(event.itt, response)
            case LogoutReceived():
                self.connection.logout_done()

    async def _outcome(self, event: Command) -> TaskOutcome:
        async with asyncio.timeout(10):
            return await self.every.server.execute(event.task)

    async def finish(self, event: Command) -> None:
        outcome = await self._outcome(event)
        self.connection.complete(event, outcome)

    async def finish_held(self) -> None:
        held, self.held = self.held, []
        for event in held:
            await self.finish(event)
        await self._do(self.connection.next_events())

    def _take_answers(self) -> None:
        data = b"".join(cast(list[Buffer], self.connection.data_to_send()))
        for raw in self._stream.receive_data(data):
            assert not raw.data_digest_failed
            pdu = decode_pdu(raw)
            if isinstance(pdu, DataInPdu):
                assert len(pdu.data) <= self.segment_length
            self.answers.append(pdu)

    def assert_bounded(self) -> None:
        connection = self.connection
        tasks = connection._tasks
        assert tasks is not None
        most = LIMITS.queue_depth + LIMITS.immediate_commands
        assert len(tasks) <= most
        assert len(tasks._ready) <= most and len(tasks._soliciting) <= most
        assert len(connection._window._waiting) <= LIMITS.queue_depth
        assert 0 <= connection._window.active <= LIMITS.queue_depth
        assert len(connection._task_management) <= LIMITS.task_management
        assert connection._outgoing.queued_bytes == 0
        assert tasks._data_in_reserved >= 0 and tasks._data_out_reserved >= 0
        collected = sum(
            len(command.transfer._data) for command in tasks._commands.values() if command.transfer is not None
        )
        # One command may always have all that it needs; every other one its first burst.
        assert collected <= LIMITS.data_out_per_command + LIMITS.data_out + most * 65536


@settings(max_examples=160)
@given(
    terms=TERMS,
    slow=st.sampled_from((0.0, 0.5, 1.0)),
    seeds=st.lists(st.tuples(st.integers(0, (1 << 32) - 1), st.sampled_from((1, 4, 16))), min_size=1, max_size=8),
)
def test_streams_of_pdus(terms: dict[str, str], slow: float, seeds: list[tuple[int, int]]) -> None:
    async def example() -> None:
        chance = random.Random(seeds[0][0])
        wire = Wire(terms, slow, chance)
        lun = chance.choice(LUNS)
        grammar = await wire.every.grammar(lun)
        state = StreamState(1, (lun, *LUNS, 7), *wire.digests)
        for seed, count in seeds:
            data = stream_bytes(random.Random(seed), grammar, state, count)
            for piece in _cut(random.Random(seed), data):
                await wire.receive(piece)
            wire.assert_bounded()
            _learn(state, wire.answers)
            if chance.random() < 0.5:
                await wire.finish_held()
        await wire.finish_held()
        wire.assert_bounded()
        wire.every.assert_at_rest()
        await wire.every.stop()

    asyncio.run(example())


def _learn(state: StreamState, answers: list[Pdu]) -> None:
    for pdu in answers:
        if isinstance(pdu, R2TPdu):
            state.saw_r2t(pdu)
        elif isinstance(pdu, TextResponsePdu):
            state.ttt = pdu.ttt
    answers.clear()


def _cut(chance: random.Random, data: bytes) -> list[bytes]:
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.choice((0, 1, 5, 40))))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@settings(max_examples=200)
@given(data=st.lists(st.binary(max_size=200), max_size=10), terms=TERMS)
def test_mere_bytes_after_the_login(data: list[bytes], terms: dict[str, str]) -> None:
    async def example() -> None:
        wire = Wire(terms, 0.0, random.Random(0))
        for piece in data:
            await wire.receive(piece)
        wire.assert_bounded()

    asyncio.run(example())


@settings(max_examples=60)
@given(terms=TERMS, seed=st.integers(0, (1 << 32) - 1))
def test_a_connection_that_lives_still_answers(terms: dict[str, str], seed: int) -> None:
    """After whole PDUs, however wild, a ping is answered, or the connection has been ended for a reason."""

    async def example() -> None:
        chance = random.Random(seed)
        wire = Wire(terms, 0.0, chance)
        grammar = await wire.every.grammar(0)
        state = StreamState(1, LUNS, *wire.digests)
        for _ in range(5):
            await wire.receive(stream_bytes(chance, grammar, state, 4, damage=0.0))
            _learn(state, wire.answers)
        ping = NopOutPdu(True, itt=0x7ABCDEF0, cmd_sn=state.cmd_sn)
        await wire.receive(b"".join(bytes(part) for part in encode_pdu(ping, *wire.digests)))
        answered = any(isinstance(pdu, NopInPdu) and pdu.itt == ping.itt for pdu in wire.answers)
        assert answered or wire.connection.phase is not Phase.FULL_FEATURE
        await wire.every.stop()

    asyncio.run(example())
