"""A PERSISTENT RESERVE OUT as it came, and what it asks of a persistent reservation (SPC-4 5.13, 6.16).

The order is a value: it may be carried out by another array than the one that a host gave it to. Then relative target
ports have to be told apart, so that each array's are counted from a first one of its own.
"""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from storage_model.errors import CheckCondition
from storage_model.nexus import ITNexus
from storage_model.persistent_reservation import Change, PersistentReservation, decode_nexus, encode_nexus
from storage_model.spec.scsi_cdb import PersistentReserveOut
from storage_model.spec.scsi_persistent_reservation import (
    MAXIMUM_LIST_LENGTH,
    BasicParameters,
    MoveParameters,
    TransportId,
    decode_move_destination,
    decode_transport_ids,
)
from storage_model.spec.scsi_sense import AscAscq, SenseKey

Isids: TypeAlias = Callable[[TransportId], Collection[bytes]]
"""The ISIDs of the known ports of an initiator device (SPC-4 7.6.4.6)."""

_Action = PersistentReserveOut
_FLAGS_BYTE, _MOVE_FLAGS_BYTE = 20, 17
_TARGET_PORT_BYTE, _MOVE_TRANSPORT_ID_BYTE, _FIRST_TRANSPORT_ID_BYTE = 18, 24, 28


@dataclass(frozen=True, slots=True)
class ReservationOrder:
    """``nexus`` and ``target_ports`` (all of the array's) in the numbers of the array that the order came to.

    ``tag`` tells the command from others of its nexus. ``first_port`` is added to every relative target port.
    """

    nexus: ITNexus
    tag: int
    service_action: PersistentReserveOut
    scope_and_type: int
    parameter_list: bytes
    target_ports: tuple[int, ...]
    first_port: int = 0

    @property
    def requester(self) -> ITNexus:
        """The nexus by which the reservation knows it."""
        return self._at(self.nexus.initiator_name, self.nexus.isid, self.nexus.target_port)

    def decision(self, isids: Isids) -> tuple[Callable[[PersistentReservation], Change | None], int]:
        """What it makes of a state, and the byte of its list that has APTPL.

        Raises CheckCondition for a list whose length cannot be; the decision raises it for what else is wrong.
        """
        data, length = self.parameter_list, len(self.parameter_list)
        if length > MAXIMUM_LIST_LENGTH:
            raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.PARAMETER_LIST_LENGTH_ERROR)
        if self.service_action is _Action.REGISTER_AND_MOVE:
            return partial(self._move, isids, MoveParameters.decode(data)), _MOVE_FLAGS_BYTE
        asked = BasicParameters.decode(data)
        if self.service_action is _Action.REGISTER and asked.spec_i_pt and length < _FIRST_TRANSPORT_ID_BYTE:
            raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.PARAMETER_LIST_LENGTH_ERROR)
        return partial(self._basic, isids, asked), _FLAGS_BYTE

    def _basic(self, isids: Isids, asked: BasicParameters, state: PersistentReservation) -> Change | None:
        nexus, action = self.requester, self.service_action
        scope, type_code = self.scope_and_type >> 4, self.scope_and_type & 0x0F
        if action in (_Action.REGISTER, _Action.REGISTER_AND_IGNORE_EXISTING_KEY):
            ports = self.target_ports if asked.all_tg_pt else None
            return state.register(
                nexus,
                asked.key,
                asked.action_key,
                aptpl=asked.aptpl,
                ignore_key=action is _Action.REGISTER_AND_IGNORE_EXISTING_KEY,
                ports=None if ports is None else [self.first_port + port for port in ports],
                named=partial(self._nexuses_named, isids, asked.transport_ids, ports) if asked.spec_i_pt else None,
            )
        if not state.is_registered_with(nexus, asked.key):
            return None
        if asked.spec_i_pt:
            raise _invalid_parameter(_FLAGS_BYTE)  # SPC-4 6.16.3
        match action:
            case _Action.RESERVE:
                return state.reserve(nexus, asked.key, scope, type_code)
            case _Action.RELEASE:
                return state.release(nexus, asked.key, scope, type_code)
            case _Action.CLEAR:
                return state.clear(nexus, asked.key)
            case _:  # PREEMPT, PREEMPT AND ABORT
                return state.preempt(nexus, asked.key, asked.action_key, scope, type_code)

    def _move(self, isids: Isids, asked: MoveParameters, state: PersistentReservation) -> Change | None:
        return state.move(
            self.requester,
            asked.key,
            asked.action_key,
            aptpl=asked.aptpl,
            unregister=asked.unregister,
            named=partial(self._destination, isids, asked),
        )

    def _nexuses_named(self, isids: Isids, data: bytes, ports: Collection[int] | None) -> list[ITNexus]:
        """With SPEC_I_PT: each initiator port, at the port of the command or at all of them (SPC-4 table 69)."""
        nexuses = []
        for name in decode_transport_ids(data, _FIRST_TRANSPORT_ID_BYTE):
            found = _isids(isids, name)
            if not found:
                raise _invalid_parameter(_FIRST_TRANSPORT_ID_BYTE)
            for port in (self.nexus.target_port,) if ports is None else ports:
                nexuses += [self._at(name.initiator_name, isid, port) for isid in found]
        return nexuses

    def _destination(self, isids: Isids, asked: MoveParameters) -> list[ITNexus]:
        """A device name does for an initiator port while exactly one of its ports is known."""
        name = decode_move_destination(asked.transport_id)
        if asked.relative_target_port not in self.target_ports:
            raise _invalid_parameter(_TARGET_PORT_BYTE)
        found = _isids(isids, name)
        if len(found) != 1:
            raise _invalid_parameter(_MOVE_TRANSPORT_ID_BYTE)
        return [self._at(name.initiator_name, isid, asked.relative_target_port) for isid in found]

    def _at(self, initiator_name: str, isid: bytes, target_port: int) -> ITNexus:
        return ITNexus(initiator_name, isid, self.first_port + target_port)

    def encode(self) -> str:
        """One line of JSON for the link between two arrays."""
        return json.dumps(
            {
                "nexus": encode_nexus(self.nexus),
                "tag": self.tag,
                "action": self.service_action,
                "scope_and_type": self.scope_and_type,
                "list": self.parameter_list.hex(),
                "ports": self.target_ports,
                "first_port": self.first_port,
            }
        )

    @classmethod
    def decode(cls, text: str) -> "ReservationOrder":
        """From :meth:`encode`'s form; raises ValueError on anything else."""
        try:
            fields: dict[str, Any] = json.loads(text)
            order = cls(
                decode_nexus(*fields["nexus"]),
                int(fields["tag"]),
                PersistentReserveOut(fields["action"]),
                int(fields["scope_and_type"]) & 0xFF,
                bytes.fromhex(fields["list"]),
                tuple(int(port) for port in fields["ports"]),
                int(fields["first_port"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"not a reservation order: {text[:80]!r}: {error!r}") from None
        if not all(0 <= order.first_port + port <= 0xFFFF for port in (*order.target_ports, order.nexus.target_port)):
            raise ValueError("not a reservation order: a relative target port has sixteen bits")
        return order


def _isids(isids: Isids, name: TransportId) -> Collection[bytes]:
    return [name.isid] if name.isid is not None else isids(name)


def _invalid_parameter(byte: int) -> CheckCondition:
    return CheckCondition(
        SenseKey.ILLEGAL_REQUEST,
        AscAscq.INVALID_FIELD_IN_PARAMETER_LIST,
        field_pointer=byte,
        in_parameter_list=True,
    )
