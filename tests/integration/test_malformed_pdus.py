"""Initiators that break the protocol, against one live array: each is told, the log has a line, others are served on.

RFC 7143 says what an array answers; the history of other targets (CVE-2011-0001, CVE-2013-2850, CVE-2018-14633,
CVE-2021-28361) says what initiators have tried.
"""

import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

import pytest
import pytest_asyncio

from initiator_shim.initiator_transport import IscsiSession
from storage_model.spec.iscsi_pdu import (
    RESERVED_TAG,
    AsyncMessagePdu,
    DataInPdu,
    DataOutPdu,
    LoginRequestPdu,
    LoginResponsePdu,
    LoginStatus,
    LogoutRequestPdu,
    NopInPdu,
    NopOutPdu,
    R2TPdu,
    RejectPdu,
    RejectReason,
    ScsiCommandPdu,
    ScsiResponsePdu,
    SnackRequestPdu,
    TaskManagementRequestPdu,
    TaskManagementResponsePdu,
    TextRequestPdu,
    lun_to_bytes,
    sense_from_segment,
)
from storage_model.spec.iscsi_stream import EncodablePdu, RawPdu, encode_pdu
from storage_model.spec.iscsi_text import format_text
from tests.integration.array_process import ArrayProcess, running_array
from tests.integration.raw_initiator import RUDE, RawInitiator

pytestmark = pytest.mark.asyncio(loop_scope="module")

LUN = lun_to_bytes(0)
TEST_UNIT_READY = ScsiCommandPdu(lun=LUN, cdb=bytes(16))
READ_ONE = ScsiCommandPdu(
    read=True, lun=LUN, cdb=b"\x28\0\0\0\0\0\0\0\1\0" + bytes(6), expected_data_transfer_length=512
)
FIRST_BURST = {"FirstBurstLength": "4096", "MaxBurstLength": "8192"}


def write(blocks: int, **fields: object) -> ScsiCommandPdu:
    cdb = b"\x2a\0\0\0\0\0\0" + blocks.to_bytes(2, "big") + bytes(7)
    pdu = ScsiCommandPdu(write=True, lun=LUN, cdb=cdb, expected_data_transfer_length=512 * blocks)
    return replace(pdu, **fields)  # type: ignore[arg-type]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def array(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ArrayProcess]:
    async with running_array(tmp_path_factory.mktemp("array")) as process:
        yield process


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bystander(array: ArrayProcess) -> AsyncIterator[IscsiSession]:
    """A session that was there before and is there after each test."""
    session = await array.connect("iqn.2026-11.org.example:bystander")
    yield session
    await session.logout()


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def others_are_served(array: ArrayProcess, bystander: IscsiSession) -> AsyncIterator[None]:
    yield
    assert (await bystander.execute(0, bytes(6))).status == 0
    await array.assert_serving()
    assert "Traceback" not in array.log and "internal error" not in array.log


@pytest_asyncio.fixture(loop_scope="module")
async def rude(array: ArrayProcess) -> AsyncIterator[RawInitiator]:
    """A connection that has not logged in."""
    async with RawInitiator.connection(array.address) as initiator:
        yield initiator


def assert_logged(array: ArrayProcess, initiator: RawInitiator, *parts: str) -> None:
    """One line about the connection, with all ``parts``; its regular beginning and end apart."""
    lines = array.log_of(initiator.port)
    assert len(lines) == 1, lines
    for part in parts:
        assert part in lines[0]


# ---------------------------------------------------------------------------------------------------- before the login


def _names(array: ArrayProcess) -> dict[str, str]:
    return {"InitiatorName": RUDE, "TargetName": array.iqn, "SessionType": "Normal"}


Prelude = Callable[[RawInitiator, dict[str, str]], Sequence[EncodablePdu] | bytes]


def _login(**fields: object) -> Prelude:
    """One login request, its BHS changed."""
    return lambda initiator, names: [initiator.login_request(names, **fields)]


def _text(text: bytes, **fields: object) -> Prelude:
    """One login request with this text after the names."""
    return lambda initiator, names: [initiator.login_request({}, data=format_text(names) + text, **fields)]


def _only(text: bytes) -> Prelude:
    """One login request with this text alone."""
    return lambda initiator, names: [initiator.login_request({}, data=text)]


def _two(first: bytes, second: bytes) -> Prelude:
    def make(initiator: RawInitiator, names: dict[str, str]) -> Sequence[EncodablePdu]:
        begin = initiator.login_request({}, data=format_text(names) + first, transit=False)
        return [begin, initiator.login_request({}, data=second)]

    return make


def _endless(text: bytes) -> Prelude:
    """A text that is always to be continued; no longer than is read, since a reset would overtake the answer."""
    count = 9 if text else 65
    return lambda initiator, names: [initiator.login_request({}, data=text, cont=True, transit=False)] * count


def _random(initiator: RawInitiator, names: dict[str, str]) -> bytes:
    return random.Random(7143).randbytes(4096)


def _too_long(initiator: RawInitiator, names: dict[str, str]) -> bytes:
    bhs = initiator.login_request(names).encode_bhs()
    return bhs[:5] + (8193).to_bytes(3, "big") + bhs[8:] + bytes(8193)


def _longest_possible(initiator: RawInitiator, names: dict[str, str]) -> bytes:
    return b"\x43\x87\0\0\xff\xff\xff\xff" + bytes(40 + 255 * 4)


INITIATOR_ERROR, MISSING = LoginStatus.INITIATOR_ERROR, LoginStatus.MISSING_PARAMETER
LOGINS: dict[str, tuple[Prelude, LoginStatus | None, str]] = {
    "random bytes": (_random, None, ""),
    "http": (lambda i, n: b"GET /index.html HTTP/1.1\r\n" + b"Accept: */*\r\n" * 40, None, "data segment of"),
    "data segment too long": (_too_long, None, "data segment of 8193 bytes"),
    "longest data segment": (_longest_possible, None, "data segment of 16777215 bytes"),
    "command first": (lambda i, n: [TEST_UNIT_READY], LoginStatus.INVALID_DURING_LOGIN, "other than Login"),
    "unknown opcode first": (lambda i, n: b"\x1f" + bytes(47), LoginStatus.INVALID_DURING_LOGIN, "other than Login"),
    "a target's PDU first": (lambda i, n: [NopInPdu()], LoginStatus.INVALID_DURING_LOGIN, "other than Login"),
    "version 1 or later": (_login(version_min=1, version_max=2), LoginStatus.UNSUPPORTED_VERSION, "version 1"),
    "full feature at once": (_login(csg=3), INITIATOR_ERROR, "stage 3"),
    "stage 2": (_login(csg=2), INITIATOR_ERROR, "stage 2"),
    "to stage 2": (_login(nsg=2), INITIATOR_ERROR, "impossible stage"),
    "backwards": (_login(nsg=0), INITIATOR_ERROR, "impossible stage"),
    "transit and continue": (_login(cont=True), INITIATOR_ERROR, "T bit with C bit"),
    "session of nobody": (_login(tsih=4711), LoginStatus.SESSION_DOES_NOT_EXIST, "TSIH 4711"),
    "no text": (_only(b""), MISSING, "no InitiatorName"),
    "no initiator name": (_only(b"TargetName=x\0"), MISSING, "no InitiatorName"),
    "no target name": (_only(b"InitiatorName=iqn.2026-11.org.example:x\0"), MISSING, "no TargetName"),
    "unknown target": (_only(b"InitiatorName=a\0TargetName=b\0"), LoginStatus.NOT_FOUND, "no target of the name"),
    "long name": (_only(b"InitiatorName=" + b"a" * 224 + b"\0"), INITIATOR_ERROR, "not an iSCSI name"),
    "name of two lines": (_only(b"InitiatorName=a\nERROR\0TargetName=b\0"), INITIATOR_ERROR, "not an iSCSI name"),
    "session type": (
        _only(b"InitiatorName=a\0SessionType=Odd\0"),
        LoginStatus.SESSION_TYPE_NOT_SUPPORTED,
        "unknown SessionType",
    ),
    "missing NUL": (_text(b"HeaderDigest=None"), INITIATOR_ERROR, "NUL"),
    "no equals sign": (_text(b"HeaderDigest\0"), INITIATOR_ERROR, "key=value"),
    "empty key": (_text(b"=None\0"), INITIATOR_ERROR, "key=value"),
    "key of 64": (_text(b"K" * 64 + b"=1\0"), INITIATOR_ERROR, "63 bytes"),
    "value of 7 KiB": (_text(b"MaxBurstLength=" + b"9" * 7000 + b"\0InitialR2T=Perhaps\0"), None, ""),
    "key not ASCII": (_text("Schlüssel=1\0".encode()), INITIATOR_ERROR, "ASCII"),
    "value not UTF-8": (_text(b"TargetAlias=\xff\xfe\0"), INITIATOR_ERROR, "UTF-8"),
    "the same key twice": (_text(b"InitialR2T=No\0InitialR2T=Yes\0"), INITIATOR_ERROR, "twice"),
    "the same key again": (_two(b"X\n2026-01-01 ERROR pairvol: forged=1\0", b"X\n2026-01-01 ERROR pairvol: forged=1\0"),
                           INITIATOR_ERROR, "again"),
    "2000 keys": (_text(b"".join(b"K%d=\0" % index for index in range(1000))), INITIATOR_ERROR, "keys"),
    "100 keys": (_text(b"".join(b"X-%d=1\0" % index for index in range(100))), INITIATOR_ERROR, "too many keys"),
    "endless text": (_endless(b"A" * 8000), INITIATOR_ERROR, "longer than we allow"),
    "endless nothing": (_endless(b""), INITIATOR_ERROR, "longer than we allow"),
    "length out of range": (_text(b"MaxRecvDataSegmentLength=1\0"), INITIATOR_ERROR, "MaxRecvDataSegmentLength"),
    "only CHAP": (_text(b"AuthMethod=CHAP\0", csg=0, nsg=1), LoginStatus.AUTHENTICATION_FAILURE, "authentication"),
    "full feature key": (_text(b"SendTargets=All\0"), INITIATOR_ERROR, "SendTargets"),
    "another ISID": (
        lambda i, n: [i.login_request(n, transit=False), i.login_request({}, isid=bytes(6))],
        INITIATOR_ERROR,
        "changes during login",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LOGINS)
async def test_login(case: str, array: ArrayProcess, rude: RawInitiator) -> None:
    make, status, reason = LOGINS[case]
    sent = make(rude, _names(array))
    if isinstance(sent, bytes):
        rude.send_bytes(sent)
    else:
        rude.send(*sent)
    if case == "value of 7 KiB":  # no number: Reject, and the login goes on (§6.2)
        response = await rude.expect(LoginResponsePdu)
        assert response.status == 0 and b"MaxBurstLength=Reject\0InitialR2T=Reject\0" in bytes(response.data)
        return
    received = await rude.hung_up()
    assert_logged(array, rude, reason)
    if status is None:
        assert all(isinstance(pdu, LoginResponsePdu) and pdu.status for pdu in received)
    else:
        last = received[-1]
        assert isinstance(last, LoginResponsePdu) and last.status == status and not last.transit
        assert f"status {status:04X}h" in array.log_of(rude.port)[0]


async def test_pdus_before_the_login_is_answered(array: ArrayProcess, rude: RawInitiator) -> None:
    """An initiator has to wait for the last Login Response before it sends anything else (§6.3)."""
    command = replace(TEST_UNIT_READY, itt=7, cmd_sn=rude.cmd_sn)
    pieces = [*encode_pdu(rude.login_request(_names(array))), *encode_pdu(command)]
    rude.send_bytes(b"".join(bytes(piece) for piece in pieces))
    assert await rude.hung_up() == []
    assert_logged(array, rude, "before the login's last response")


async def test_discovery_session_takes_no_commands(array: ArrayProcess, rude: RawInitiator) -> None:
    names = {"InitiatorName": RUDE, "SessionType": "Discovery"}
    rude.send(rude.login_request(names))
    assert (await rude.expect(LoginResponsePdu)).status == 0
    rude.command(TEST_UNIT_READY)
    assert (await rude.expect(RejectPdu)).reason == RejectReason.COMMAND_NOT_SUPPORTED
    assert_logged(array, rude, "discovery session")


# ---------------------------------------------------------------------------------------------- full feature phase


async def assert_alive(initiator: RawInitiator) -> None:
    """The same session still executes commands."""
    for _ in range(2):  # the first may be told of the power on
        itt = initiator.command(TEST_UNIT_READY)
        response = await initiator.expect(ScsiResponsePdu)
        assert response.itt == itt
    assert response.status == 0


def _numbered(initiator: RawInitiator, pdu: EncodablePdu) -> EncodablePdu:
    fields = {"itt": 0x4711, "cmd_sn": initiator.cmd_sn, "immediate": True}
    return replace(pdu, **fields)  # type: ignore[type-var]


REJECTED: dict[str, tuple[Callable[[RawInitiator], EncodablePdu], RejectReason]] = {
    "unknown opcode": (lambda i: RawPdu(b"\x1f\x80" + bytes(46), b"", b""), RejectReason.COMMAND_NOT_SUPPORTED),
    "vendor opcode": (lambda i: RawPdu(b"\x1c\x80" + bytes(46), b"", b"vendor"), RejectReason.COMMAND_NOT_SUPPORTED),
    "a target's Data-In": (lambda i: DataInPdu(itt=1, data=bytes(512)), RejectReason.COMMAND_NOT_SUPPORTED),
    "a target's R2T": (lambda i: R2TPdu(itt=1), RejectReason.COMMAND_NOT_SUPPORTED),
    "a target's message": (lambda i: AsyncMessagePdu(), RejectReason.COMMAND_NOT_SUPPORTED),
    "SNACK": (lambda i: SnackRequestPdu(), RejectReason.SNACK_REJECT),
    "second login": (lambda i: LoginRequestPdu(), RejectReason.PROTOCOL_ERROR),
    "reserved tag": (
        lambda i: replace(TEST_UNIT_READY, itt=RESERVED_TAG, cmd_sn=i.cmd_sn, immediate=True),
        RejectReason.INVALID_PDU_FIELD,
    ),
    "data without W bit": (
        lambda i: replace(TEST_UNIT_READY, itt=9, data=bytes(512), cmd_sn=i.cmd_sn, immediate=True),
        RejectReason.INVALID_PDU_FIELD,
    ),
    "logout reason": (lambda i: _numbered(i, LogoutRequestPdu(reason=77)), RejectReason.INVALID_PDU_FIELD),
    "text to be continued": (
        lambda i: _numbered(i, TextRequestPdu(ttt=5, data=b"SendTargets=All\0")),
        RejectReason.PROTOCOL_ERROR,
    ),
    "text without NUL": (lambda i: _numbered(i, TextRequestPdu(data=b"SendTargets")), RejectReason.PROTOCOL_ERROR),
    "text too long": (lambda i: _numbered(i, TextRequestPdu(data=b"A=" + bytes(20_000))), RejectReason.PROTOCOL_ERROR),
}


@pytest.mark.parametrize("case", REJECTED)
async def test_rejected(case: str, array: ArrayProcess, rude: RawInitiator) -> None:
    await rude.log_in(array.iqn)
    make, reason = REJECTED[case]
    pdu = make(rude)
    rude.send(pdu)
    reject = await rude.expect(RejectPdu)
    assert reject.reason == reason
    assert bytes(reject.data)[:48] == pdu.encode_bhs(), "a Reject carries the header (§11.17)"
    assert_logged(array, rude, f"Reject {reason:02X}h")
    await assert_alive(rude)


async def test_data_segment_too_long(array: ArrayProcess, rude: RawInitiator) -> None:
    await rude.log_in(array.iqn)
    rude.send_bytes(b"\0\x80\0\0\0\x04\0\1" + bytes(40))
    assert await rude.hung_up() == []
    assert_logged(array, rude, "data segment of 262145 bytes")


@pytest.mark.parametrize(
    "ahs", [bytes(255 * 4), b"\xff" * 255 * 4, b"\0\1\x99\0", b"\0\0\1\0" * 4, b"\0\x11\1\0" + bytes(16)], ids=repr
)
async def test_additional_header_segments(ahs: bytes, array: ArrayProcess, rude: RawInitiator) -> None:
    """An AHS that is nonsense, or that a TEST UNIT READY has no use for, is no reason to fall over (§11.2.2)."""
    await rude.log_in(array.iqn)
    itt = rude.command(TEST_UNIT_READY, ahs=ahs)
    response = await rude.receive()
    assert isinstance(response, RejectPdu) or (isinstance(response, ScsiResponsePdu) and response.itt == itt)
    await assert_alive(rude)


async def test_data_out_without_a_task_is_ignored(array: ArrayProcess, rude: RawInitiator) -> None:
    """The task may have ended meanwhile (an abort, a reset): that is nobody's fault."""
    await rude.log_in(array.iqn)
    rude.send(DataOutPdu(final=True, lun=LUN, itt=0x4711, ttt=3, data=bytes(512)))
    await assert_alive(rude)
    assert array.log_of(rude.port) == []


async def test_data_out_with_a_wrong_target_transfer_tag(array: ArrayProcess, rude: RawInitiator) -> None:
    await rude.log_in(array.iqn, InitialR2T="Yes", ImmediateData="No")
    await assert_alive(rude)
    itt = rude.command(write(1))
    r2t = await rude.expect(R2TPdu)
    wrong = DataOutPdu(final=True, lun=LUN, itt=itt, ttt=r2t.ttt + 1, data=bytes(512))
    rude.send(wrong)
    assert (await rude.expect(RejectPdu)).reason == RejectReason.PROTOCOL_ERROR
    assert_logged(array, rude, "TTT")
    rude.send(replace(wrong, ttt=r2t.ttt))  # the task itself is not harmed
    assert (await rude.expect(ScsiResponsePdu)).status == 0


@pytest.mark.parametrize(
    ("changes", "asc_ascq"),
    [
        ({"data_sn": 5}, 0x4705),
        ({"buffer_offset": 1024}, 0x0C0D),
        ({"data": bytes(513)}, 0x0C0D),
        ({"data": bytes(256)}, 0x0C0D),
        ({"buffer_offset": 0xFFFFFFFF}, 0x0C0D),
    ],
    ids=["DataSN", "offset", "too much", "too little", "far away"],
)
async def test_data_out_that_does_not_fit(
    changes: dict[str, object], asc_ascq: int, array: ArrayProcess, rude: RawInitiator
) -> None:
    await rude.log_in(array.iqn, InitialR2T="Yes", ImmediateData="No")
    await assert_alive(rude)
    itt = rude.command(write(1))
    r2t = await rude.expect(R2TPdu)
    right = DataOutPdu(final=True, lun=LUN, itt=itt, ttt=r2t.ttt, data=bytes(512))
    rude.send(replace(right, **changes))  # type: ignore[arg-type]
    await expect_sense(rude, itt, asc_ascq)
    await assert_alive(rude)


async def expect_sense(initiator: RawInitiator, itt: int, asc_ascq: int) -> None:
    response = await initiator.expect(ScsiResponsePdu)
    assert (response.itt, response.status) == (itt, 2)
    sense = sense_from_segment(response.data)
    assert (sense[2] & 0xF, int.from_bytes(sense[12:14])) == (0xB, asc_ascq)


@pytest.mark.parametrize("length", [4097, 8192, 70_000])
async def test_immediate_data_beyond_the_first_burst(length: int, array: ArrayProcess, rude: RawInitiator) -> None:
    await rude.log_in(array.iqn, **FIRST_BURST)
    await assert_alive(rude)
    itt = rude.command(write(200), data=bytes(length))
    await expect_sense(rude, itt, 0x0C0D)
    await assert_alive(rude)


async def test_immediate_data_that_was_not_agreed(array: ArrayProcess, rude: RawInitiator) -> None:
    await rude.log_in(array.iqn, ImmediateData="No")
    await assert_alive(rude)
    await expect_sense(rude, rude.command(write(1), data=bytes(512)), 0x0C0C)
    await assert_alive(rude)


async def test_unsolicited_data_that_was_not_agreed(array: ArrayProcess, rude: RawInitiator) -> None:
    await rude.log_in(array.iqn, InitialR2T="Yes", ImmediateData="No")
    await assert_alive(rude)
    itt = rude.command(write(1), final=False)
    rude.send(DataOutPdu(final=True, lun=LUN, itt=itt, data=bytes(512)))
    await expect_sense(rude, itt, 0x0C0C)
    await assert_alive(rude)


async def test_a_tag_that_is_in_use(array: ArrayProcess, rude: RawInitiator) -> None:
    await rude.log_in(array.iqn, InitialR2T="Yes", ImmediateData="No")
    await assert_alive(rude)
    itt = rude.command(write(1))
    r2t = await rude.expect(R2TPdu)
    rude.itt -= 1
    assert rude.command(TEST_UNIT_READY) == itt
    assert (await rude.expect(RejectPdu)).reason == RejectReason.TASK_IN_PROGRESS
    rude.send(DataOutPdu(final=True, lun=LUN, itt=itt, ttt=r2t.ttt, data=bytes(512)))
    assert (await rude.expect(ScsiResponsePdu)).status == 0


@pytest.mark.parametrize("distance", [-1, 1_000, 1 << 31])
async def test_command_numbers_outside_of_the_window_are_ignored(
    distance: int, array: ArrayProcess, rude: RawInitiator
) -> None:
    """§4.2.2.1; the next one that is inside is executed."""
    await rude.log_in(array.iqn)
    await assert_alive(rude)
    rude.send(replace(TEST_UNIT_READY, itt=0x4711, cmd_sn=rude.cmd_sn + distance & 0xFFFFFFFF))
    await assert_alive(rude)


async def test_header_digest_that_does_not_match(array: ArrayProcess, rude: RawInitiator) -> None:
    assert (await rude.log_in(array.iqn, HeaderDigest="CRC32C"))["HeaderDigest"] == "CRC32C"
    await assert_alive(rude)
    header = bytes(encode_pdu(replace(TEST_UNIT_READY, itt=9, cmd_sn=rude.cmd_sn), header_digest=True)[0])
    rude.send_bytes(header[:20] + b"\xee" + header[21:])
    assert await rude.hung_up() == []
    assert_logged(array, rude, "header digest")


async def test_data_digest_that_does_not_match(array: ArrayProcess, rude: RawInitiator) -> None:
    await rude.log_in(array.iqn, DataDigest="CRC32C")
    await assert_alive(rude)
    pdu = NopOutPdu(immediate=True, itt=0x4711, cmd_sn=rude.cmd_sn, data=b"ping")
    header, data, digest = (bytes(part) for part in encode_pdu(pdu, data_digest=True))
    rude.send_bytes(header + b"pong" + digest)
    assert (await rude.expect(RejectPdu)).reason == RejectReason.DATA_DIGEST_ERROR
    assert data != b"pong"
    assert_logged(array, rude, "data digest")
    await assert_alive(rude)


@pytest.mark.parametrize("function", [0, 9, 127])
async def test_task_management_that_does_not_exist(function: int, array: ArrayProcess, rude: RawInitiator) -> None:
    await rude.log_in(array.iqn)
    rude.send(TaskManagementRequestPdu(True, function, LUN, 0x4711, cmd_sn=rude.cmd_sn))
    response = await rude.expect(TaskManagementResponsePdu)
    assert (response.itt, response.response) == (0x4711, 5)
    await assert_alive(rude)


async def test_hang_up_in_the_middle_of_everything(array: ArrayProcess) -> None:
    """After any number of bytes of a login, a write and a read."""
    async with RawInitiator.connection(array.address) as whole:
        pdus: list[EncodablePdu] = [
            whole.login_request(_names(array)),
            replace(write(4, data=bytes(1024)), itt=1, cmd_sn=1),
            READ_ONE,
        ]
        stream = b"".join(bytes(part) for pdu in pdus for part in encode_pdu(pdu))
    for length in range(1, len(stream), 97):
        async with RawInitiator.connection(array.address) as initiator:
            initiator.send_bytes(stream[:length])
            await initiator.finish()


async def test_damaged_sessions(array: ArrayProcess) -> None:
    """A proper session with some bytes changed: seeded, so that a failure comes again."""
    for seed in range(400):
        chance = random.Random(seed)
        async with RawInitiator.connection(array.address) as initiator:
            pdus: list[EncodablePdu] = [
                initiator.login_request(_names(array)),
                replace(TEST_UNIT_READY, itt=1, cmd_sn=1),
                replace(write(2, data=bytes(512), final=False), itt=2, cmd_sn=2),
                DataOutPdu(final=True, lun=LUN, itt=2, buffer_offset=512, data=bytes(512)),
                replace(READ_ONE, itt=3, cmd_sn=3),
                TaskManagementRequestPdu(True, 1, LUN, 4, 2, cmd_sn=4),
                TextRequestPdu(itt=5, cmd_sn=4, data=b"SendTargets=\0"),
                NopOutPdu(itt=6, cmd_sn=5, data=b"ping"),
                LogoutRequestPdu(itt=7, cmd_sn=6),
            ]
            first = 1 if seed % 3 else 0  # two of three damage only what comes after the login
            parts = [b"".join(bytes(part) for part in encode_pdu(pdu)) for pdu in pdus]
            stream = bytearray(b"".join(parts))
            for _ in range(chance.randint(1, 4)):
                stream[chance.randrange(len(parts[0]) * first, len(stream))] = chance.randrange(256)
            cut = len(parts[0]) if first else 0
            initiator.send_bytes(bytes(stream[:cut]))
            if first:
                await initiator.expect(LoginResponsePdu)
            initiator.send_bytes(bytes(stream[cut:]))
            await initiator.finish()
            if seed % 10 == 0:
                await array.assert_serving()
