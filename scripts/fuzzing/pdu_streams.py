"""Streams of PDUs in the full feature phase: every opcode, fields that are right or not, bytes damaged on the way."""

import random
from collections import deque
from dataclasses import dataclass, field

from scripts.fuzzing.cdbs import CdbGrammar, Command
from scripts.fuzzing.chance import content, damaged, number
from scripts.fuzzing.login_texts import text_request
from storage_model.spec.iscsi_pdu import (
    RESERVED_TAG,
    DataOutPdu,
    LogoutRequestPdu,
    NopOutPdu,
    R2TPdu,
    ScsiCommandPdu,
    SnackRequestPdu,
    TaskManagementRequestPdu,
    lun_to_bytes,
)
from storage_model.spec.iscsi_stream import EncodablePdu, RawPdu, encode_pdu

_LOGOUT, _RESETS = 0.01, (1, 2, 3, 4, 5, 6, 8)
TARGET_COLD_RESET = 7


@dataclass
class StreamState:
    """What a peer that wants to be nearly right has to remember. ``ttts`` are (ITT, TTT, offset, length) of R2Ts."""

    cmd_sn: int
    luns: tuple[int, ...]
    header_digest: bool = False
    data_digest: bool = False
    itt: int = 0
    ttt: int = RESERVED_TAG
    itts: deque[int] = field(default_factory=lambda: deque([0], 32))
    r2ts: deque[tuple[int, int, int, int]] = field(default_factory=lambda: deque(maxlen=32))

    def next_cmd_sn(self, chance: random.Random, immediate: bool) -> int:
        """In order, nearly always."""
        kind, cmd_sn = chance.random(), self.cmd_sn
        if kind < 0.97:
            self.cmd_sn = self.cmd_sn + (not immediate) & 0xFFFFFFFF
            return cmd_sn
        if kind < 0.985:  # ahead of what comes next, which fills the hole
            return cmd_sn + chance.choice((1, 2, 100, 127, 128, 1000)) & 0xFFFFFFFF
        return number(chance, 32, cmd_sn)

    def saw_r2t(self, pdu: R2TPdu) -> None:
        self.r2ts.append((pdu.itt, pdu.ttt, pdu.buffer_offset, pdu.desired_data_transfer_length))


def stream_bytes(
    chance: random.Random, grammar: CdbGrammar, state: StreamState, count: int, damage: float = 0.33
) -> bytes:
    """So many PDUs as they go over the wire; with the probability ``damage`` the bytes of one are damaged."""
    pieces = []
    for _ in range(count):
        pdu = _any_pdu(chance, grammar, state)
        pieces.append(b"".join(bytes(part) for part in encode_pdu(pdu, state.header_digest, state.data_digest)))
    if chance.random() < damage:
        which = chance.randrange(len(pieces))
        pieces[which] = damaged(chance, pieces[which])
    return b"".join(pieces)


def _any_pdu(chance: random.Random, grammar: CdbGrammar, state: StreamState) -> EncodablePdu:
    match chance.randrange(12):
        case 0 | 1 | 2 | 3 | 4:
            return _command(chance, grammar.draw(chance), state)
        case 5 | 6:
            return _data_out(chance, state)
        case 7:
            immediate = chance.random() < 0.7
            itt = RESERVED_TAG if chance.random() < 0.3 else number(chance, 32)
            ping = content(chance, chance.choice((0, 4, 512, 9000)))
            return NopOutPdu(
                immediate, _lun(chance, state), itt, number(chance, 32), state.next_cmd_sn(chance, immediate), 0, ping
            )
        case 8:
            return _task_management(chance, state)
        case 9:
            return text_request(chance, state.next_cmd_sn(chance, True), state.ttt)
        case 10:
            return SnackRequestPdu(snack_type=chance.randrange(16), itt=number(chance, 32))
        case _:
            if chance.random() < _LOGOUT * 12:
                return LogoutRequestPdu(True, chance.randrange(5), 3, number(chance, 16, 1), state.cmd_sn)
            return RawPdu(
                _random_header(chance),
                content(chance, 4 * chance.choice((0, 0, 1, 5))),
                content(chance, chance.choice((0, 0, 7))),
            )


def _random_header(chance: random.Random) -> bytes:
    return bytes((chance.randrange(256), chance.randrange(256))) + chance.randbytes(46)


def _lun(chance: random.Random, state: StreamState) -> bytes:
    if chance.random() < 0.95:
        return lun_to_bytes(chance.choice(state.luns))
    return bytes((chance.choice((0x40, 0x80, 0xC1, 0xFF)), 0)) + chance.randbytes(6)


def _command(chance: random.Random, command: Command, state: StreamState) -> ScsiCommandPdu:
    immediate = chance.random() < 0.05
    state.itt = state.itt + 1 & 0x7FFFFFFF
    itt = state.itt if chance.random() < 0.97 else number(chance, 32, state.itt)
    state.itts.append(itt)
    write = bool(command.data_out) or chance.random() < 0.05
    sent = command.data_out[: chance.choice((0, 512, 8192, 65536))]
    expected = len(command.data_out) if write else command.data_in_length
    if chance.random() < 0.05:
        expected = number(chance, 32, expected)
    return ScsiCommandPdu(
        immediate=immediate,
        final=chance.random() < 0.8,
        read=not write or chance.random() < 0.03,
        write=write,
        attribute=chance.choice((1, 1, 1, 1, 0, 2, 3, 4, 7)),
        lun=_lun(chance, state),
        itt=itt,
        expected_data_transfer_length=expected,
        cmd_sn=state.next_cmd_sn(chance, immediate),
        cdb=command.cdb,
        ahs=b"" if chance.random() < 0.97 else _ahs(chance),
        data=sent,
    )


def _ahs(chance: random.Random) -> bytes:
    """Extended CDB, bidirectional length, or neither; its length field right or not (RFC 7143 §11.2.2)."""
    body = content(chance, chance.choice((1, 5, 16, 40)))
    ahs = chance.choice((len(body), 0, 0xFFFF, 3)).to_bytes(2, "big") + bytes((chance.choice((1, 2, 7)),)) + body
    return ahs + bytes(-len(ahs) % 4)


def _data_out(chance: random.Random, state: StreamState) -> DataOutPdu:
    """An answer to an R2T of ours, whole, in part, out of place or too long; or to none."""
    if state.r2ts and chance.random() < 0.8:
        itt, ttt, offset, length = state.r2ts.popleft() if chance.random() < 0.7 else state.r2ts[0]
        length = min(length, 65536)
    else:
        itt, ttt, offset, length = chance.choice(state.itts), RESERVED_TAG, chance.choice((0, 512, 8192)), 512
    match chance.randrange(8):
        case 0:
            offset = number(chance, 32, offset)
        case 1:
            length = chance.randrange(length + 1)
        case 2:
            ttt = number(chance, 32, ttt)
        case 3:
            length += chance.choice((1, 512))
    data_sn = 0 if chance.random() < 0.9 else number(chance, 32)
    return DataOutPdu(chance.random() < 0.8, bytes(8), itt, ttt, 0, data_sn, offset, content(chance, length))


def _task_management(chance: random.Random, state: StreamState) -> TaskManagementRequestPdu:
    immediate = chance.random() < 0.9
    function = chance.choice(_RESETS) if chance.random() < 0.9 else chance.randrange(128)
    if function == TARGET_COLD_RESET and chance.random() < 0.8:  # it ends every session there is
        function = 1
    return TaskManagementRequestPdu(
        immediate, function, _lun(chance, state), number(chance, 32), chance.choice(state.itts),
        state.next_cmd_sn(chance, immediate), 0, state.cmd_sn - chance.choice((1, 1, 2, 50)) & 0xFFFFFFFF,
    )  # fmt: skip
