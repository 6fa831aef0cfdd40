"""What one rude initiator does from its connection to its end: an episode, made of one seed."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

from initiator_shim.initiator_transport import IscsiSession
from initiator_shim.session_errors import CommandRejected, CommandTimeout, SessionError, SessionLost
from scripts.fuzzing.cdbs import CdbGrammar, KnownCommand, ask_for_all, ask_for_one, described, listed
from scripts.fuzzing.chance import number
from scripts.fuzzing.copy_link_frames import link_bytes
from scripts.fuzzing.findings import Finding
from scripts.fuzzing.live_array import CHAP_SECRET, CHAP_USER, FUZZ, LUNS, PAIRED_BYTES, LiveArray
from scripts.fuzzing.login_texts import chap_response, login_request, text_request
from scripts.fuzzing.parameter_lists import Landmarks
from scripts.fuzzing.pdu_streams import StreamState, stream_bytes
from scripts.fuzzing.wire import HungUp, RudeConnection, describe_status
from storage_model.errors import RemoteProtocolError
from storage_model.spec.iscsi_pdu import (
    RESERVED_TAG,
    LoginRequestPdu,
    LoginResponsePdu,
    R2TPdu,
    TextResponsePdu,
)
from storage_model.spec.iscsi_text import format_text, parse_pairs
from storage_model.spec.scsi_task import TaskFunction

_COMMAND_SECONDS = 20.0  # behind a SANITIZE that is waited for, and an ORDERED command that waits for it
_RESET_CODES = (0x29, 0x2F)  # power on or reset; commands cleared by another initiator
_QUIET_SECONDS = 0.02
_POWER_ON_TRIES = 5
_RESTORE_TRIES = 3
_INITIATORS = tuple(f"{FUZZ}-{index},i,0x80000000000{index}" for index in range(4))
# What another initiator may have done to ours, so that its session may end.
_EXCUSED = ("TARGET COLD RESET", "session reinstated")


@dataclass
class Surroundings:
    """What all episodes share: the array, what it said of itself, and what was counted."""

    array: LiveArray
    known: Mapping[int, list[KnownCommand]] = field(default_factory=dict)
    landmarks: dict[int, Landmarks] = field(default_factory=dict)
    responses: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)

    def grammar(self, chance: random.Random) -> tuple[int, CdbGrammar]:
        lun = chance.choice(LUNS)
        return lun, CdbGrammar(self.known[lun], self.landmarks[lun])


def _name_and_isid(chance: random.Random) -> tuple[str, bytes]:
    """One of a few initiator ports, so that sessions meet and reinstate each other; any ISID now and then."""
    index = chance.randrange(4)
    isid = bytes((0x80, 0, 0, 0, 0, index)) if chance.random() < 0.7 else chance.randbytes(6)
    return f"{FUZZ}-{index}", isid


async def learn(around: Surroundings) -> None:
    """Asks the array about its units: capacity, designators, and every command with its usage mask."""
    session = await IscsiSession.connect(*around.array.addresses[0], around.array.iqn, f"{FUZZ}-0")
    known: dict[int, list[KnownCommand]] = {}
    for lun in LUNS:
        for _ in range(_POWER_ON_TRIES):
            if (await session.execute(lun, bytes(6))).status == 0:
                break
        capacity = (await session.execute(lun, b"\x9e\x10" + bytes(11) + b"\x20\0\0", b"", 32)).data_in
        page = (await session.execute(lun, b"\x12\1\x83\x04\0\0", b"", 1024)).data_in
        marks = Landmarks(
            int.from_bytes(capacity[:8], "big") + 1, int.from_bytes(capacity[8:12], "big"), (), _INITIATORS
        )
        around.landmarks[lun] = replace(marks, designators=_designators(page))
        everything = ask_for_all()
        answer = (await session.execute(lun, everything.cdb, b"", everything.data_in_length)).data_in
        known[lun] = []
        for opcode, service_action in listed(answer):
            one = ask_for_one(opcode, service_action)
            data = (await session.execute(lun, one.cdb, b"", one.data_in_length)).data_in
            known[lun].append(described(opcode, service_action, data))
    designators = tuple(each for marks in around.landmarks.values() for each in marks.designators)
    around.landmarks = {lun: replace(marks, designators=designators) for lun, marks in around.landmarks.items()}
    around.known = known
    await session.logout()


def _designators(page: bytes) -> tuple[bytes, ...]:
    found: list[bytes] = []
    position = 4
    while position + 4 <= len(page):
        end = position + 4 + page[position + 3]
        found.append(page[position:end])
        position = end
    return tuple(found)


# -------------------------------------------------------------------------------------------------- before the login


async def login_text(chance: random.Random, around: Surroundings) -> None:
    """Logins of every kind, with CHAP now and then right, most of them wrong somewhere."""
    connection = await RudeConnection.open(chance.choice(around.array.addresses), around.responses)
    with_chap = chance.random() < 0.4
    name, isid = (
        f"{FUZZ}-chap-{chance.randrange(3)}" if with_chap else f"{FUZZ}-{chance.randrange(4)}",
        chance.randbytes(6),
    )
    names = {"InitiatorName": name, "TargetName": around.array.iqn}
    if chance.random() < 0.2:
        names = {"InitiatorName": name, "SessionType": "Discovery"}
    if with_chap and chance.random() < 0.8:
        names["AuthMethod"] = "CHAP"
    try:
        for step in range(chance.choice((1, 2, 3, 3, 5, 70))):
            request = login_request(chance, 1, names if step == 0 else {}, isid)
            if with_chap and step == 0 and chance.random() < 0.8:
                request = replace(request, csg=0, nsg=1, transit=chance.random() < 0.3, data=format_text(names))
            around.sent["login requests"] += 1
            await connection.send(request)
            while pdus := await connection.answers(_QUIET_SECONDS):
                if with_chap and isinstance(pdus[-1], LoginResponsePdu):
                    await _go_on_with_chap(chance, connection, pdus[-1], around)
    except HungUp:
        pass
    finally:
        await connection.close()


async def _go_on_with_chap(
    chance: random.Random, connection: RudeConnection, response: LoginResponsePdu, around: Surroundings
) -> None:
    try:
        pairs = dict(parse_pairs(response.data))
    except RemoteProtocolError as error:
        raise Finding(f"a login response with text that is none: {error}") from None
    request = LoginRequestPdu(isid=response.isid, itt=7, cid=1, cmd_sn=1, csg=0, nsg=1, transit=chance.random() < 0.5)
    if pairs.get("AuthMethod") == "CHAP":
        await connection.send(
            replace(request, transit=False, data=format_text({"CHAP_A": chance.choice(("5", "5,7", "99"))}))
        )
    elif "CHAP_C" in pairs:
        secret = CHAP_SECRET if chance.random() < 0.7 else b"wrong"
        answer = chap_response(pairs.get("CHAP_I", "0"), secret, pairs["CHAP_C"])
        if chance.random() < 0.3:
            answer = chance.choice((pairs["CHAP_C"], answer[:-1], answer + "00", "0x", "0b!!", answer * 40))
        around.sent["CHAP responses"] += 1
        await connection.send(
            replace(request, transit=True, nsg=3, data=format_text({"CHAP_N": CHAP_USER, "CHAP_R": answer}))
        )


async def noise(chance: random.Random, around: Surroundings) -> None:
    """Bytes that were never meant to be iSCSI, or a connection that says nothing and goes."""
    connection = await RudeConnection.open(chance.choice(around.array.addresses), around.responses)
    try:
        around.sent["bytes of noise"] += (length := chance.choice((0, 1, 47, 48, 49, 1000, 9000)))
        await connection.send_bytes(chance.randbytes(length))
        if chance.random() < 0.3:
            connection.end_of_stream()
        await connection.answers(_QUIET_SECONDS)
    except HungUp:
        pass
    finally:
        await connection.close()


async def copy_link(chance: random.Random, around: Surroundings) -> None:
    """A stranger at the port of the remote-copy link; its answers are not looked at."""
    try:
        async with asyncio.timeout(_COMMAND_SECONDS):
            reader, writer = await asyncio.open_connection(*around.array.link_address)
    except (OSError, TimeoutError) as error:
        raise Finding(f"cannot connect to the link: {error}") from None
    try:
        for _ in range(chance.choice((1, 1, 3))):
            around.sent["pieces of link frames"] += 1
            writer.write(link_bytes(chance, PAIRED_BYTES))
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(_QUIET_SECONDS):
                    if not await reader.read(1 << 16):
                        break
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


# ------------------------------------------------------------------------------------------------ full feature phase


async def _logged_in(chance: random.Random, around: Surroundings, *, discovery: bool = False) -> RudeConnection:
    """A proper login with random terms; raises HungUp when the array will not have us (any more)."""
    connection = await RudeConnection.open(chance.choice(around.array.addresses), around.responses)
    name, isid = _name_and_isid(chance)
    pairs = {"InitiatorName": name, "SessionType": "Discovery"} if discovery else {
        "InitiatorName": name, "TargetName": around.array.iqn,
        "HeaderDigest": chance.choice(("None", "CRC32C")), "DataDigest": chance.choice(("None", "CRC32C")),
        "InitialR2T": chance.choice(("Yes", "No")), "ImmediateData": chance.choice(("Yes", "No")),
        "MaxRecvDataSegmentLength": str(number(chance, 24, 512, 8192, 65536) + 512 & 0xFFFFFF or 512),
        "MaxBurstLength": str(max(number(chance, 20, 512, 65536, 262144), 512)),
        "FirstBurstLength": str(max(number(chance, 17, 512, 65536), 512)),
        "MaxOutstandingR2T": str(chance.choice((1, 2, 8, 65535))),
    }  # fmt: skip
    try:
        request = LoginRequestPdu(
            transit=True, csg=1, nsg=3, isid=isid, itt=7, cid=1, cmd_sn=1, data=format_text(pairs)
        )
        await connection.send(request)
        async with asyncio.timeout(_COMMAND_SECONDS):
            while not (pdus := await connection.answers(_COMMAND_SECONDS)):
                pass
        response = pdus[0]
        if not isinstance(response, LoginResponsePdu) or response.status:
            raise HungUp
    except BaseException:
        await connection.close()
        raise
    answers = dict(parse_pairs(response.data))
    connection.digests(answers.get("HeaderDigest") == "CRC32C", answers.get("DataDigest") == "CRC32C")
    return connection


async def pdu_stream(chance: random.Random, around: Surroundings) -> None:
    """PDUs of every kind, in bunches, until the array has had enough; ends by FIN, RST or in the middle of a PDU."""
    connection = await _logged_in(chance, around)
    lun, grammar = around.grammar(chance)
    state = StreamState(1, (lun, *LUNS), connection.header_digest, connection.data_digest)
    reads = chance.random() < 0.85  # some never take an answer
    try:
        for _ in range(chance.choice((1, 3, 10, 30))):
            count = chance.choice((1, 4, 16))
            around.sent["PDUs"] += count
            await connection.send_bytes(stream_bytes(chance, grammar, state, count))
            for pdu in await connection.answers(_QUIET_SECONDS) if reads else []:
                if isinstance(pdu, R2TPdu):
                    state.saw_r2t(pdu)
                elif isinstance(pdu, TextResponsePdu):
                    state.ttt = pdu.ttt
        if reads and chance.random() < 0.3:
            connection.end_of_stream()
            await connection.until_hung_up()
    except HungUp:
        pass
    except TimeoutError:
        raise Finding("the array did not hang up after the end of our stream") from None
    finally:
        await connection.close()


async def text_phase(chance: random.Random, around: Surroundings) -> None:
    """Text negotiation in the full feature phase, also of discovery sessions."""
    connection = await _logged_in(chance, around, discovery=chance.random() < 0.5)
    ttt, cmd_sn = RESERVED_TAG, 1
    try:
        for _ in range(chance.choice((1, 5, 40))):
            request = text_request(chance, cmd_sn, ttt)
            cmd_sn += not request.immediate
            around.sent["text requests"] += 1
            await connection.send(request)
            for pdu in await connection.answers(_QUIET_SECONDS):
                if isinstance(pdu, TextResponsePdu):
                    ttt = pdu.ttt
    except HungUp:
        pass
    finally:
        await connection.close()


async def _proper_session(
    around: Surroundings, address: tuple[str, int], name: str, isid: bytes, digests: bool
) -> IscsiSession:
    """Of an initiator that does nothing wrong: that it cannot log in is a finding."""
    try:
        return await IscsiSession.connect(*address, around.array.iqn, name, isid, _COMMAND_SECONDS, digests=digests)
    except SessionError as error:
        raise Finding(f"a proper login failed: {error}") from None


async def commands(chance: random.Random, around: Surroundings) -> None:
    """A well-behaved session whose CDBs and parameter lists are wild: each command must be answered, all of them.

    The initiator is a strict one: an answer that breaks RFC 7143 is a finding.
    """
    isid = bytes((0x80, 0xFF)) + chance.randbytes(4)
    session = await _proper_session(
        around, chance.choice(around.array.addresses), f"{FUZZ}-{chance.randrange(4)}", isid, chance.random() < 0.3
    )
    port = local_port(session)
    try:
        lun, grammar = around.grammar(chance)
        for _ in range(chance.choice((5, 20, 80))):
            if chance.random() < 0.1:
                lun, grammar = around.grammar(chance)
            command = grammar.draw(chance)
            around.sent["commands"] += 1
            data_in_length = 0 if command.data_out else command.data_in_length
            try:
                outcome = await session.execute(lun, command.cdb, command.data_out, data_in_length, _COMMAND_SECONDS)
            except CommandTimeout:
                if not await _told_of_a_reset(session, lun):
                    raise Finding(f"no answer to CDB {command.cdb.hex(' ')} at LUN {lun}") from None
                around.responses["none, aborted by another initiator"] += 1
                continue
            except CommandRejected as error:
                raise Finding(f"CDB {command.cdb.hex(' ')} at LUN {lun}: {error}") from None
            around.responses[describe_status(outcome.status, outcome.sense)] += 1
            if len(outcome.data_in) > data_in_length:
                raise Finding(f"CDB {command.cdb.hex(' ')} at LUN {lun}: more data than the initiator takes")
        if chance.random() < 0.7:
            await session.logout()
    except SessionLost as error:
        await _excuse(around.array, port, error)
    finally:
        with contextlib.suppress(SessionError):
            session.close()


async def _told_of_a_reset(session: IscsiSession, lun: int) -> bool:
    """TAS is 0: a command that another initiator's reset has ended is not answered; a unit attention says so."""
    for _ in range(_POWER_ON_TRIES):
        sense = (await session.execute(lun, bytes(6), b"", 0, _COMMAND_SECONDS)).sense
        if sense[2:3] == b"\x06" and sense[12] in _RESET_CODES:
            return True
    return False


async def _excuse(array: LiveArray, port: int, error: SessionLost) -> None:
    """The session of an initiator that did nothing wrong has ended: by another one's right, or it is a finding."""
    for _ in range(100):
        if port in array.drop_reasons:
            break
        await asyncio.sleep(0.02)
    reason = array.drop_reasons.get(port, "")
    if not reason.startswith(_EXCUSED):
        raise Finding(f"a proper session was lost: {error}; the array says: {reason or 'nothing'}")


def local_port(session: IscsiSession) -> int:
    """By which the array's log names the connection."""
    transport = session._transport
    return int(transport.get_extra_info("sockname")[1]) if transport is not None else 0


async def _restore_unit(session: IscsiSession, lun: int) -> None:
    """A reset ends what keeps the unit busy, but another initiator may reset it, too, right after.

    Its reset or CLEAR TASK SET ends a command of ours without an answer (TAS is 0: SAM-5 5.6), and its ORDERED command
    makes ours wait for a copy or an erasure. That one comes after each of several resets is unlikely; that a reset does
    not come back is a finding.
    """
    register = bytes(8) + (1).to_bytes(8, "big") + bytes(8)
    clear = (1).to_bytes(8, "big") + bytes(16)
    groups = bytes(4) + b"\0\0\0\1" + b"\0\0\0\2"
    commands = (
        (bytes(6), b""),
        (bytes(6), b""),
        (b"\xa4\x0a" + bytes(4) + len(groups).to_bytes(4, "big") + bytes(2), groups),
        (b"\x1b\0\0\0\1\0", b""),
        (b"\x5f\6" + bytes(5) + b"\0\x18\0", register),
        (b"\x5f\3" + bytes(5) + b"\0\x18\0", clear),
    )
    for attempt in range(_RESTORE_TRIES):
        await session.task_management(TaskFunction.LOGICAL_UNIT_RESET, lun)
        try:
            for cdb, data in commands:
                await session.execute(lun, cdb, data, 0, _COMMAND_SECONDS)
            return
        except CommandTimeout:
            if attempt == _RESTORE_TRIES - 1:
                raise


async def restore(chance: random.Random, around: Surroundings) -> None:
    """Undoes what would let every later command end at the same early check: states, protection, reservations."""
    session = await _proper_session(around, around.array.addresses[0], f"{FUZZ}-0", chance.randbytes(6), False)
    port = local_port(session)
    try:
        for lun in LUNS:
            await _restore_unit(session, lun)
        await session.logout()
    except SessionLost as error:
        await _excuse(around.array, port, error)
    except SessionError as error:
        raise Finding(f"while the units were restored: {error}") from None
    finally:
        session.close()


Episode = Callable[[random.Random, Surroundings], Awaitable[None]]
EPISODES: dict[str, tuple[Episode, int]] = {
    "commands": (commands, 5),
    "stream": (pdu_stream, 4),
    "login": (login_text, 3),
    "text": (text_phase, 1),
    "noise": (noise, 1),
    "link": (copy_link, 1),
    "restore": (restore, 1),
}
"""By name, with their weight."""
