"""Events, frames and outcomes in words, for the trace of a violation."""

from collections.abc import Callable
from typing import Any

from initiator_shim.pair_client import PairRefused
from scripts.exploration.array_machine import LINK, Command, Output
from scripts.exploration.host_machine import Dropped, HostOutput, Told
from storage_model.nexus import ITNexus
from storage_model.pair import PairEpoch, PairRecord, PairRequest
from storage_model.pair_state import PairState
from storage_model.spec.copy_frames import Answer, Frame, FrameStream, FrameType, decode_parts
from storage_model.spec.pair_cdb import PairControlOut, PairStatus
from storage_model.spec.scsi_sense import decode_sense
from storage_model.spec.scsi_task import ScsiStatus

_SITES = "AB"


def decoded(data: bytes) -> Frame:
    (frame,) = FrameStream().receive_data(data)
    return frame


def owner_words(nexus: ITNexus | None) -> str:
    if nexus is None:
        return "no owner"
    _, number, site = nexus.initiator_name.rsplit("-", 2)
    return f"owner host {int(number) + 1} at {site.upper()}"


def epoch_words(value: PairEpoch) -> str:
    p_vol = _SITES[value.p_serial != "30095"] if value.p_serial else "nowhere"
    words = f"epoch {value.epoch}: {value.state.name}, P-VOL at {p_vol}"
    return f"{words}, {owner_words(value.owner.nexus if value.owner else None)}"


def record_words(record: PairRecord) -> str:
    words = epoch_words(record.decided)
    if record.state is not record.decided.state:
        words += f", now {record.state.name}"
    return words + (f"; voted for {epoch_words(record.accepted)}" if record.accepted is not None else "")


def frame_words(data: bytes) -> str:
    frame = decoded(data)
    match frame.type:
        case FrameType.PROPOSE:
            return f"PROPOSE {epoch_words(PairEpoch.decode(decode_parts(frame.payload, 3)[0].decode()))}"
        case FrameType.PAIR_STATUS:
            decided = PairEpoch.decode(decode_parts(frame.payload, 2)[0].decode())
            return f"PAIR STATUS {PairState(frame.length_bytes).name}, {epoch_words(decided)}"
        case FrameType.REQUEST:
            request = PairRequest.decode(bytes(frame.payload).decode())
            return f"REQUEST {request.verb.value}, expected epoch {request.expected_epoch}"
        case FrameType.STATE:
            return f"STATE {PairState(frame.length_bytes).name} in epoch {frame.epoch}"
        case FrameType.ANSWER:
            detail = bytes(frame.payload).decode() if frame.flags and frame.payload else ""
            return f"ANSWER {Answer(frame.flags).name} {detail}" + (f" epoch {frame.epoch}" if frame.epoch else "")
        case FrameType.WRITE:
            return f"WRITE of {frame.payload[0] if frame.payload else 0} in epoch {frame.epoch}"
    return f"{frame.type.name} in epoch {frame.epoch}"


def outcome_words(data: bytes) -> str:
    status, sense_length = data[1], data[2]
    rest = data[3:]
    if status == ScsiStatus.GOOD and len(rest) > 40:
        pair = PairStatus.decode(rest)
        return f"GOOD: {pair.role.label} in {pair.state.name}, epoch {pair.epoch}, {owner_words(pair.owner)}"
    if not sense_length:
        return ScsiStatus(status).name.replace("_", " ")
    return f"CHECK CONDITION, {PairRefused(status, decode_sense(rest[:sense_length]))}"


def command_words(command: Command) -> str:
    if not command.tag or command.what in ("REPORT PAIR STATUS", "WITHDRAW"):
        return command.what
    return f"{command.what}, expected epoch {PairControlOut.decode(command.cdb).expected_epoch}"


def _array(says: tuple[int, Output]) -> str:
    site, output = says
    if output.to == LINK:
        return f"array {_SITES[site]} sends {frame_words(output.data)}"
    whom = f"host {output.to + 1}" if output.to < 90 else "the operator"
    return f"array {_SITES[site]} answers {whom}'s {output.what}: {outcome_words(output.data)}"


def _shim(says: tuple[int, HostOutput]) -> str:
    number, output = says
    if isinstance(output, Command):
        return f"shim {number + 1} sends {command_words(output)}"
    if isinstance(output, Dropped):
        return f"shim {number + 1} hangs up and logs in again"
    assert isinstance(output, Told)
    answer = f"GOOD, epoch {output.epoch}" if output.won else "RESERVATION CONFLICT"
    return f"host {number + 1} is told {answer} ({output.reason})"


def said(says: list[tuple[str, Any]]) -> list[str]:
    """What the machines said in one step."""
    words: dict[str, Callable[[Any], str]] = {"array": _array, "shim": _shim, "crashed": _crashed}
    return [words[kind](what) for kind, what in says]


def _crashed(record: PairRecord) -> str:
    return f"its disk has {record_words(record)}"


_PLAIN = {
    "connect": "the arrays connect",
    "rest": "array {site} comes to rest",
    "saved": "array {site}: what it was saving is durable",
    "impatient": "array {site}: a request has waited long enough for its decision",
    "reserve": "host {host} sends RESERVE",
    "release": "host {host} sends RELEASE",
    "write": "host {host} sends WRITE",
    "reset": "host {host} sends LOGICAL UNIT RESET",
    "abandon": "host {host} aborts its RESERVE",
    "die": "the shim of host {host} dies and starts again",
    "late": "shim {host} has no answer in time",
    "timer": "shim {host} tries again",
}
_OF_THE_LINK = {b"HELLO": "HELLO: the link is up", b"FIN": "the end of the connection"}


def event_words(event: tuple[Any, ...], message: Any, sites: tuple[int, ...]) -> str:
    """``message`` is what the event delivers, if it does; ``sites`` has the site of each host."""
    name, *rest = event
    match name:
        case "early":
            return f"{event_words(rest[1], message, sites)} (and is interrupted after {rest[0]} turns)"
        case "operate":
            return f"the operator sends {rest[0]} to array {_SITES[rest[1]]}"
        case "deliver":
            return f"array {_SITES[rest[0]]} receives {_OF_THE_LINK.get(message) or frame_words(message)}"
        case "command":
            what = command_words(message) if isinstance(message, Command) else "end of its session"
            return f"array {_SITES[sites[rest[0]]]} receives host {rest[0] + 1}'s {what}"
        case "answer":
            return f"shim {rest[0] + 1} receives {outcome_words(message)}"
        case "crash":
            durable = " (what it was saving is durable)" if rest[1] else ""
            return f"array {_SITES[rest[0]]} crashes{durable} and starts again; {_still(rest[2])}"
        case "cut":
            return f"array {_SITES[rest[0]]} loses the link; {_still(rest[1])}"
    number = rest[0] if rest else 0
    return _PLAIN[name].format(site=_SITES[number] if number < len(_SITES) else "", host=number + 1)


def _still(frames: int) -> str:
    return f"{frames} of its frames under way arrive yet"
