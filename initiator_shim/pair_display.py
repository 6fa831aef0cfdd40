"""What ``pairctl`` shows, apart from printing it: pairdisplay lines, JSON, error numbers.

The table has the form that operators of real arrays know from CCI's ``pairdisplay``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from storage_model.errors import UserError
from storage_model.pair_state import PairRole, PairState, Refusal
from storage_model.spec.pair_cdb import PairControlOut, PairOut, PairStatus, StatusFlag, VerifyState

_HEADER = "(Port#,TID, LU),Seq#,LDEV#.P/S,Status,Fence, %,P-LDEV# M"
STATES = {state.name: state for state in PairState} | {"SSUS": PairState.PSUS}


@dataclass(frozen=True, slots=True)
class PairUnit:
    """A pair as found behind a LUN. ``peer`` is the other array's own report of it, when it was asked."""

    lun: int
    status: PairStatus
    peer: PairStatus | None = None


def select(units: Sequence[PairUnit], name: str) -> list[PairUnit]:
    """The pair of this name, or the pairs of the group. Raises UserError when there is neither."""
    chosen = [unit for unit in units if unit.status.pair_name == name]
    chosen = chosen or [unit for unit in units if unit.status.group_name == name]
    if not chosen:
        known = ", ".join(sorted(unit.status.pair_name for unit in units)) or "none"
        raise UserError(f"no pair or group {name} at this array (pairs: {known})")
    return chosen


def select_group(units: Sequence[PairUnit], group: str | None, pair: str | None) -> list[PairUnit]:
    """The pairs of the group, or this pair of it, or just this pair. Raises UserError when there is none."""
    chosen = [
        unit for unit in units if group in (None, unit.status.group_name) and pair in (None, unit.status.pair_name)
    ]
    if not chosen:
        asked = " ".join(f"{word} {name}" for word, name in (("group", group), ("pair", pair)) if name is not None)
        known = ", ".join(sorted({f"{unit.status.group_name or '-'}/{unit.status.pair_name}" for unit in units}))
        raise UserError(f"no {asked} at this array (group/pair: {known or 'none'})")
    return chosen


def parse_state(text: str) -> PairState:
    state = STATES.get(text.upper())
    if state is None:
        raise UserError(f"STATE {text}: must be one of {', '.join(STATES)}")
    return state


# ---------------------------------------------------------------------------------------------------------- the table


def table(units: Sequence[PairUnit]) -> str:
    """Two lines for each pair: (L) as the array reports it, (R) from the other array, or implied when not asked.

    Without a link nothing is implied about the other half's LDEV and state, which then are dashes.
    """
    rows = [line for unit in units for line in (_local_line(unit), _remote_line(unit))]
    if not rows:
        return "no pairs are configured at this array\n"
    group = max(len("Group"), *(len(row[0]) for row in rows))
    volume = max(len("PairVol(L/R)"), *(len(row[1]) for row in rows))
    lines = [f"{'Group':<{group}} {'PairVol(L/R)':<{volume}} {_HEADER}"]
    lines += [
        f"{row[0]:<{group}} {row[1]:<{volume}} {row[2]}{row[3]:<5} {row[4]:>11} {row[5]:>4} {row[6]:<6},"
        f" {row[7]:>3} {row[8]:>5} {row[9]}"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def _local_line(unit: PairUnit) -> tuple[str, ...]:
    return _line(unit.status, "L", unit.lun)


def _remote_line(unit: PairUnit) -> tuple[str, ...]:
    if unit.peer is not None:
        return _line(unit.peer, "R", unit.lun)
    own = unit.status
    role = {PairRole.P_VOL: PairRole.S_VOL, PairRole.S_VOL: PairRole.P_VOL}.get(own.role, PairRole.SMPL)
    known = _peer_known(own)
    fence, percent, partner, writable = _tail(own, known and role is PairRole.S_VOL, str(own.ldev))
    label = role.label if known or own.role is not PairRole.SMPL else "----"
    return (
        own.group_name or "-",
        f"{own.pair_name}(R)",
        _port(unit.lun),
        own.peer_serial,
        f"{_peer_ldev(own)}.{label}",
        state_label(role, own.state) if known else "----",
        fence,
        percent if known else "-",
        partner,
        writable,
    )


def _peer_known(status: PairStatus) -> bool:
    """True if the array is in touch with the other half: an array that is not reports an LDEV of 0."""
    return bool(status.flags & StatusFlag.LINK_UP)


def _peer_ldev(status: PairStatus) -> str:
    return str(status.peer_ldev) if _peer_known(status) else "-"


def _line(status: PairStatus, side: str, lun: int) -> tuple[str, ...]:
    return (
        status.group_name or "-",
        f"{status.pair_name}({side})",
        _port(lun),
        status.serial,
        f"{status.ldev}.{status.role.label}",
        state_label(status.role, status.state),
        *_tail(status, status.role is PairRole.S_VOL, _peer_ldev(status)),
    )


def _tail(status: PairStatus, is_s_vol: bool, partner_ldev: str) -> tuple[str, str, str, str]:
    """Fence, percentage, the partner's LDEV, and W for an S-VOL that takes writes."""
    paired = status.role is not PairRole.SMPL
    writable = is_s_vol and bool(status.flags & StatusFlag.S_VOL_WRITABLE)
    return (
        status.fence.name if paired else "----",
        str(status.copy_percent) if paired else "-",
        partner_ldev if paired else "-",
        "W" if writable else "-",
    )


def _port(lun: int) -> str:
    return f"(CL1-A-1,0,{lun:>2})"


def state_label(role: PairRole, state: PairState) -> str:
    """The S-VOL of a suspended pair shows SSUS."""
    if role is PairRole.SMPL:
        return "----"
    return "SSUS" if role is PairRole.S_VOL and state is PairState.PSUS else state.name


def remarks(shown: Sequence[PairUnit], all_units: Sequence[PairUnit], *, peer_asked: bool) -> str:
    """What the table of ``shown`` cannot say: which halves are out of reach, and that (R) lines are implied.

    ``all_units`` are the array's pairs, of which another one may prove that the link itself is up.
    """
    in_touch = {unit.status.peer_serial for unit in all_units if _peer_known(unit.status)}
    lines = []
    for unit in shown:
        if peer_asked and unit.peer is None:
            lines.append(f"{unit.status.pair_name}: the array asked with --peer has no such pair")
        elif not _peer_known(unit.status):
            lines.append(_out_of_touch(unit, unit.status.peer_serial in in_touch))
        lines += _after_takeover(unit.status, unit.peer)
    if any(unit.peer is None for unit in shown):
        hint = "" if peer_asked else "; --peer asks the other array"
        lines.append(f"(R) as array {shown[0].status.serial} sees it{hint}")
    return "".join(f"{line}\n" for line in lines)


def _out_of_touch(unit: PairUnit, link_up: bool) -> str:
    name, peer = unit.status.pair_name, unit.status.peer_serial
    if link_up:
        return f"{name}: the pair is not {'yet connected' if unit.peer else 'configured'} at array {peer}"
    return f"{name}: the link to array {peer} is down{'' if unit.peer else ', or the pair is not configured there'}"


def _after_takeover(status: PairStatus, peer: PairStatus | None) -> list[str]:
    """What a forced takeover left behind, until a resync names the good side.

    Of two forced takeovers, one at each array, neither half is outdated, and no resync joins them.
    """
    flags, name = status.flags, status.pair_name
    lines = []
    if flags & StatusFlag.OUTDATED:
        lines.append(f"{name}: outdated: array {status.peer_serial} was promoted by a forced takeover")
    if flags & StatusFlag.PEER_OUTDATED:
        lines.append(f"{name}: promoted by a forced takeover: the half at array {status.peer_serial} is outdated")
    if flags & StatusFlag.SPLIT_BRAIN:
        joins = any(each is not None and each.flags & _JOINS for each in (status, peer))
        lines.append(f"{name}: SPLIT BRAIN: both halves have data that the other lacks: {_way_out(status, joins)}")
    return lines


_JOINS = StatusFlag.LINK_UP | StatusFlag.OUTDATED


def _way_out(status: PairStatus, joins: bool) -> str:
    """Not connected, this array cannot tell whether the other one was changed by force as well."""
    if joins:
        return "resync --good p or --good s"
    return (
        f"if array {status.peer_serial} shows its half as outdated, resync --good p or --good s once they are"
        " connected; if it was changed by force there, too, delete --force at an array that has the pair ends it at"
        " both, the data stay; then create at the array that has the good data"
    )


def advice(verb: str, refusal: Refusal | None) -> str:
    """How to do what a refusal asks for, to be put behind its words."""
    if refusal not in (Refusal.SUSPENDED_BY_ERROR, Refusal.BOTH_WRITTEN):
        return ""
    return f" ({'' if verb == 'resync' else 'resync '}--good p or --good s)"


def owners(units: Sequence[PairUnit]) -> str:
    """One line for each quorum pair: its epoch, and who owns it where."""
    lines = []
    for unit in units:
        status = unit.status
        if status.flags & StatusFlag.QUORUM:
            owner = (
                f"owner {status.owner.initiator_port_name} at array {status.owner_serial}"
                if status.owner
                else "no owner"
            )
            doubt = ", in doubt" if status.flags & StatusFlag.IN_DOUBT else ""
            lines.append(f"{status.pair_name}: epoch {status.epoch}{doubt}, {owner}\n")
    return "".join(lines)


def as_json(unit: PairUnit) -> dict[str, object]:
    """One pair as ``--json`` gives it; ``peer`` is the other array's report, or null.

    ``peer_ldev`` is null while the array is not in touch with the other half.
    """
    return {
        "lun": unit.lun,
        **_half_as_json(unit.status),
        "peer": _half_as_json(unit.peer) if unit.peer is not None else None,
    }


def _half_as_json(status: PairStatus) -> dict[str, object]:
    owner = None
    if status.owner is not None:
        owner = {
            "initiator_name": status.owner.initiator_name,
            "isid": status.owner.isid.hex(),
            "target_port": status.owner.target_port,
            "serial": status.owner_serial,
        }
    return {
        "pair": status.pair_name,
        "group": status.group_name,
        "volume": status.volume_name,
        "role": status.role.label,
        "state": status.state.name,
        "fence": status.fence.name.lower(),
        "copy_percent": status.copy_percent,
        "differing_bytes": status.differing_bytes,
        "size_bytes": status.size_bytes,
        "epoch": status.epoch,
        "owner": owner,
        "serial": status.serial,
        "ldev": status.ldev,
        "peer_serial": status.peer_serial,
        "peer_ldev": status.peer_ldev if _peer_known(status) else None,
        "quorum": bool(status.flags & StatusFlag.QUORUM),
        "link_up": bool(status.flags & StatusFlag.LINK_UP),
        "s_vol_writable": bool(status.flags & StatusFlag.S_VOL_WRITABLE),
        "in_doubt": bool(status.flags & StatusFlag.IN_DOUBT),
        "outdated": bool(status.flags & StatusFlag.OUTDATED),
        "peer_outdated": bool(status.flags & StatusFlag.PEER_OUTDATED),
        "split_brain": bool(status.flags & StatusFlag.SPLIT_BRAIN),
        "copy_rate": status.copy_rate or None,
        "bytes_per_second": status.bytes_per_second,
        "seconds_left": seconds_left(status),
        "verify": _verify_as_json(status),
    }


def _verify_as_json(status: PairStatus) -> dict[str, object] | None:
    if status.verify is VerifyState.NONE:
        return None
    return {
        "state": status.verify.name.lower().replace("_", " "),
        "compared_bytes": status.verified_bytes,
        "differing_bytes": status.verify_differing_bytes,
        "busy_bytes": status.verify_busy_bytes,
    }


def seconds_left(status: PairStatus) -> int | None:
    """Of the copy or the comparison under way, as fast as it goes now; None: nothing is under way, or it stands."""
    if not status.bytes_per_second:
        return None
    left = status.differing_bytes
    if status.verify is VerifyState.RUNNING:
        left = status.size_bytes - status.verified_bytes
    return left // status.bytes_per_second


def goal_reached(command: PairControlOut, status: PairStatus) -> bool:
    """Whether the pair is already where the verb leads. Such a pair of a group is left out, but never of CREATE: it may
    have its P-VOL at the other array, or other data."""
    match command.service_action:
        case PairOut.RESYNC | PairOut.SWAP_RESYNC:
            return status.state in (PairState.COPY, PairState.PAIR)
        case PairOut.SPLIT:
            return status.state is PairState.PSUS
        case PairOut.DELETE:
            return status.state is PairState.SMPL
    return False
