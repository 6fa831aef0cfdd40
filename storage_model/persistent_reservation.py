"""Persistent reservations of one unit: who is registered, who holds it, and what each request does (SPC-4 5.13).

A state is a value: a request makes a new one, or None for RESERVATION CONFLICT, or raises ``CheckCondition``. Whoever
asks makes the new state durable where it must be, puts it into force, and tells the nexuses that have to hear of it.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, TypeAlias

from storage_model.errors import CheckCondition
from storage_model.nexus import ITNexus
from storage_model.spec.scsi_sense import AscAscq, SenseKey

MAXIMUM_REGISTRATIONS = 1024
"""Of one unit; more end with INSUFFICIENT REGISTRATION RESOURCES (SPC-4 5.13.7)."""

_SERVICE_ACTION_BYTE, _SCOPE_AND_TYPE_BYTE = 1, 2  # of the CDB
_ACTION_KEY_BYTE = 8  # of the parameter list
_SPEC_I_PT_BYTE, _SPEC_I_PT_BIT = 20, 3
_TRANSPORT_ID_BYTE = {True: 24, False: 28}  # by whether the list is that of REGISTER AND MOVE


class ReservationType(IntEnum):
    """SPC-4 table 206."""

    WRITE_EXCLUSIVE = 0x1
    EXCLUSIVE_ACCESS = 0x3
    WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 0x5
    EXCLUSIVE_ACCESS_REGISTRANTS_ONLY = 0x6
    WRITE_EXCLUSIVE_ALL_REGISTRANTS = 0x7
    EXCLUSIVE_ACCESS_ALL_REGISTRANTS = 0x8

    @property
    def all_registrants(self) -> bool:
        """Everybody registered is a holder (SPC-4 5.13.10)."""
        return self in _ALL_REGISTRANTS

    @property
    def registrants_only(self) -> bool:
        return self in _REGISTRANTS_ONLY

    @property
    def for_registrants(self) -> bool:
        """Whoever is registered may use the unit as the holder may: "RR" in SPC-4 table 65."""
        return self in _REGISTRANTS_ONLY or self in _ALL_REGISTRANTS

    @property
    def exclusive_access(self) -> bool:
        """Reading is excluded, too."""
        return self in _EXCLUSIVE_ACCESS

    def __str__(self) -> str:
        return self.name.replace("_", " ").lower()


_ALL_REGISTRANTS = frozenset(
    {ReservationType.WRITE_EXCLUSIVE_ALL_REGISTRANTS, ReservationType.EXCLUSIVE_ACCESS_ALL_REGISTRANTS}
)
_REGISTRANTS_ONLY = frozenset(
    {ReservationType.WRITE_EXCLUSIVE_REGISTRANTS_ONLY, ReservationType.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY}
)
_EXCLUSIVE_ACCESS = frozenset(
    {
        ReservationType.EXCLUSIVE_ACCESS,
        ReservationType.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY,
        ReservationType.EXCLUSIVE_ACCESS_ALL_REGISTRANTS,
    }
)


@dataclass(frozen=True, slots=True)
class Registration:
    """``all_target_ports``: it was made for every target port at once, and is reported in one line with the others."""

    key: int
    all_target_ports: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What a request made of a state.

    ``attentions`` are the unit attentions to establish, by nexus. ``preempted`` are the nexuses whose reservation or
    registration was preempted: those whose commands PREEMPT AND ABORT aborts (SPC-4 5.13.11.2.6).
    """

    state: "PersistentReservation"
    attentions: tuple[tuple[ITNexus, AscAscq], ...] = ()
    preempted: frozenset[ITNexus] = frozenset()


NexusesNamed: TypeAlias = Callable[[], Collection[ITNexus]]
"""The nexuses that the TransportIDs of a parameter list name; raises ``CheckCondition``. Called only when the request
is none that conflicts, as RESERVATION CONFLICT goes before a fault in the list."""


def _invalid(asc_ascq: AscAscq, byte: int, bit: int | None = None, *, in_list: bool = True) -> CheckCondition:
    return CheckCondition(
        SenseKey.ILLEGAL_REQUEST, asc_ascq, field_pointer=byte, bit_pointer=bit, in_parameter_list=in_list
    )


def _requested_type(scope: int, type_code: int) -> ReservationType:
    """The scope is always the logical unit (SPC-4 6.15.3.3)."""
    if scope:
        raise _invalid(AscAscq.INVALID_FIELD_IN_CDB, _SCOPE_AND_TYPE_BYTE, 7, in_list=False)
    try:
        return ReservationType(type_code)
    except ValueError:
        raise _invalid(AscAscq.INVALID_FIELD_IN_CDB, _SCOPE_AND_TYPE_BYTE, 3, in_list=False) from None


@dataclass(frozen=True, slots=True)
class PersistentReservation:
    """``registrations`` is never changed in place. ``holder`` is None while nobody, or everybody registered, holds.

    ``generation`` is PRGENERATION; ``aptpl`` whether all of this survives a loss of power.
    """

    registrations: Mapping[ITNexus, Registration] = field(default_factory=dict)
    reservation_type: ReservationType | None = None
    holder: ITNexus | None = None
    generation: int = 0
    aptpl: bool = False

    def __str__(self) -> str:
        kind = self.reservation_type
        held = "not reserved" if kind is None else f"{kind} held by {self.holder or 'all of them'}"
        return f"{len(self.registrations)} registered, {held}"

    # --- what holds

    def holds(self, nexus: ITNexus) -> bool:
        """Whether the nexus is a persistent reservation holder (SPC-4 5.13.10). A nexus is, a key is not."""
        if self.reservation_type is None:
            return False
        if self.reservation_type.all_registrants:
            return nexus in self.registrations
        return nexus == self.holder

    def takes_in(self, nexus: ITNexus) -> bool:
        """A holder, or registered where that is as good: no command conflicts but those that SPC-4 table 66 names."""
        if self.holds(nexus):
            return True
        return (
            self.reservation_type is not None and self.reservation_type.for_registrants and nexus in self.registrations
        )

    @property
    def held_key(self) -> int:
        """What READ RESERVATION reports: the holder's key; 0 where everybody registered holds (SPC-4 5.13.10)."""
        return 0 if self.holder is None else self.registrations[self.holder].key

    def is_registered_with(self, nexus: ITNexus, key: int) -> bool:
        """Whether a registered nexus has told its own key (SPC-4 6.16.3)."""
        registration = self.registrations.get(nexus)
        return registration is not None and registration.key == key

    def _next(self, **changes: Any) -> "PersistentReservation":
        return replace(self, generation=(self.generation + 1) & 0xFFFFFFFF, **changes)

    # --- REGISTER, REGISTER AND IGNORE EXISTING KEY

    def register(
        self,
        nexus: ITNexus,
        key: int,
        action_key: int,
        *,
        aptpl: bool = False,
        ignore_key: bool = False,
        ports: Collection[int] | None = None,
        named: NexusesNamed | None = None,
    ) -> Change | None:
        """SPC-4 tables 67, 68, 69. ``ports``: with ALL_TG_PT, every target port; ``named``: with SPEC_I_PT.

        For all target ports it is as if the request had come through each; it is done for all of them, or for none.
        """
        mine = [nexus] if ports is None else [replace(nexus, target_port=port) for port in {*ports, nexus.target_port}]
        registered = nexus in self.registrations
        if not ignore_key:
            if not (self.is_registered_with(nexus, key) if registered else key == 0):
                return None
            if any(other in self.registrations and not self.is_registered_with(other, key) for other in mine):
                return None
        if named is not None and (ignore_key or registered):
            raise _invalid(AscAscq.INVALID_FIELD_IN_PARAMETER_LIST, _SPEC_I_PT_BYTE, _SPEC_I_PT_BIT)
        if not action_key:
            return self._unregister(nexus, [other for other in mine if other in self.registrations], aptpl)
        if named is not None:
            mine += self._unregistered_only(mine, named())
        made = Registration(action_key, ports is not None)
        return Change(self._next(registrations=self._with(dict.fromkeys(mine, made)), aptpl=aptpl))

    def _unregistered_only(self, mine: Collection[ITNexus], named: Collection[ITNexus]) -> list[ITNexus]:
        """The nexuses to register beside one's own: none of them may be registered (SPC-4 table 67, footnote b)."""
        others = [other for other in dict.fromkeys(named) if other not in mine]
        if any(other in self.registrations for other in others):
            raise _invalid(AscAscq.INVALID_FIELD_IN_PARAMETER_LIST, _TRANSPORT_ID_BYTE[False])
        return others

    def _with(
        self, added: Mapping[ITNexus, Registration], removed: Collection[ITNexus] = ()
    ) -> dict[ITNexus, Registration]:
        registrations = {**self.registrations, **added}
        for nexus in removed:
            registrations.pop(nexus, None)
        if len(registrations) > MAXIMUM_REGISTRATIONS:
            raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.INSUFFICIENT_REGISTRATION_RESOURCES)
        return registrations

    def _unregister(self, nexus: ITNexus, leaving: Collection[ITNexus], aptpl: bool) -> Change:
        """SPC-4 5.13.11.2.3; where nothing is registered, nothing is done (tables 67 and 68)."""
        if not leaving:
            return Change(self)
        left = self._without(leaving)
        attentions: tuple[tuple[ITNexus, AscAscq], ...] = ()
        released = self.reservation_type is not None and left.reservation_type is None
        if released and self.reservation_type is not None and self.reservation_type.registrants_only:
            attentions = _tell(left.registrations, nexus, AscAscq.RESERVATIONS_RELEASED)
        return Change(left._next(aptpl=aptpl), attentions)

    def _without(self, leaving: Collection[ITNexus]) -> "PersistentReservation":
        """Registrations removed, and the reservation with its last holder (SPC-4 table 71)."""
        kept = {nexus: kept for nexus, kept in self.registrations.items() if nexus not in leaving}
        if self.reservation_type is None:
            stays = False
        elif self.reservation_type.all_registrants:
            stays = bool(kept)
        else:
            stays = self.holder in kept
        if stays:
            return replace(self, registrations=kept)
        return replace(self, registrations=kept, reservation_type=None, holder=None)

    # --- RESERVE, RELEASE, CLEAR

    def reserve(self, nexus: ITNexus, key: int, scope: int, type_code: int) -> Change | None:
        """SPC-4 5.13.9."""
        if not self.is_registered_with(nexus, key):
            return None
        if self.reservation_type is not None:
            same = scope == 0 and type_code == self.reservation_type
            return Change(self) if same and self.holds(nexus) else None
        return Change(self._held_by(nexus, _requested_type(scope, type_code)))

    def _held_by(self, nexus: ITNexus, reservation_type: ReservationType) -> "PersistentReservation":
        holder = None if reservation_type.all_registrants else nexus
        return replace(self, reservation_type=reservation_type, holder=holder)

    def release(self, nexus: ITNexus, key: int, scope: int, type_code: int) -> Change | None:
        """SPC-4 5.13.11.2.2."""
        if not self.is_registered_with(nexus, key):
            return None
        if self.reservation_type is None or not self.holds(nexus):
            return Change(self)
        if scope:
            raise _invalid(AscAscq.INVALID_FIELD_IN_CDB, _SCOPE_AND_TYPE_BYTE, 7, in_list=False)
        if type_code != self.reservation_type:
            raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.INVALID_RELEASE_OF_PERSISTENT_RESERVATION)
        attentions: tuple[tuple[ITNexus, AscAscq], ...] = ()
        if self.reservation_type.for_registrants:
            attentions = _tell(self.registrations, nexus, AscAscq.RESERVATIONS_RELEASED)
        return Change(replace(self, reservation_type=None, holder=None), attentions)

    def clear(self, nexus: ITNexus, key: int) -> Change | None:
        """SPC-4 5.13.11.2.7."""
        if not self.is_registered_with(nexus, key):
            return None
        attentions = _tell(self.registrations, nexus, AscAscq.RESERVATIONS_PREEMPTED)
        return Change(self._next(registrations={}, reservation_type=None, holder=None), attentions)

    # --- PREEMPT, PREEMPT AND ABORT

    def preempt(self, nexus: ITNexus, key: int, action_key: int, scope: int, type_code: int) -> Change | None:
        """SPC-4 table 72: which of the two it is depends on whose key ``action_key`` is."""
        if not self.is_registered_with(nexus, key):
            return None
        if self.reservation_type is not None:
            if self.reservation_type.all_registrants:
                if not action_key:
                    return self._replace_reservation(nexus, 0, scope, type_code)
            elif not action_key:
                raise _invalid(AscAscq.INVALID_FIELD_IN_PARAMETER_LIST, _ACTION_KEY_BYTE)
            elif action_key == self.held_key:
                return self._replace_reservation(nexus, action_key, scope, type_code)
        lost = self._registered_with(action_key)
        if not lost:
            return None
        attentions = _tell(lost, nexus, AscAscq.REGISTRATIONS_PREEMPTED)
        return Change(self._without(lost)._next(), attentions, lost)

    def _registered_with(self, key: int) -> frozenset[ITNexus]:
        return frozenset(nexus for nexus, made in self.registrations.items() if made.key == key)

    def _replace_reservation(self, nexus: ITNexus, action_key: int, scope: int, type_code: int) -> Change:
        """SPC-4 5.13.11.2.4.3. The nexus that preempts keeps its registration, also when its key is the one named."""
        reservation_type = _requested_type(scope, type_code)
        preempted = self._registered_with(action_key) if action_key else frozenset(self.registrations)
        kept = {other: made for other, made in self.registrations.items() if other == nexus or other not in preempted}
        attentions = _tell(preempted, nexus, AscAscq.REGISTRATIONS_PREEMPTED)
        if reservation_type is not self.reservation_type:
            attentions += _tell(kept, nexus, AscAscq.RESERVATIONS_RELEASED)
        state = self._next(registrations=kept)._held_by(nexus, reservation_type)
        return Change(state, attentions, preempted)

    # --- REGISTER AND MOVE

    def move(
        self, nexus: ITNexus, key: int, action_key: int, *, aptpl: bool, unregister: bool, named: NexusesNamed
    ) -> Change | None:
        """SPC-4 5.13.8, table 70. ``named`` is the one nexus that the parameter list names."""
        if not self.is_registered_with(nexus, key):
            return None
        if self.reservation_type is None:
            raise _invalid(AscAscq.INVALID_FIELD_IN_CDB, _SERVICE_ACTION_BYTE, 4, in_list=False)
        if self.holder != nexus:
            return None  # also where everybody registered holds it
        if not action_key:
            raise _invalid(AscAscq.INVALID_FIELD_IN_PARAMETER_LIST, _ACTION_KEY_BYTE)
        (destination,) = named()
        if (destination.initiator_name, destination.isid) == (nexus.initiator_name, nexus.isid):
            raise _invalid(AscAscq.INVALID_FIELD_IN_PARAMETER_LIST, _TRANSPORT_ID_BYTE[True])
        registrations = self._with({destination: Registration(action_key)}, (nexus,) if unregister else ())
        return Change(self._next(registrations=registrations, holder=destination, aptpl=aptpl))

    # --- what survives a loss of power

    def encode(self) -> str:
        """One line of JSON: the form in the metadata store. PRGENERATION begins anew at power on (SPC-4 6.15.2)."""
        return json.dumps(
            {
                "type": self.reservation_type,
                "holder": None if self.holder is None else encode_nexus(self.holder),
                "registrations": [
                    [*encode_nexus(nexus), made.key, made.all_target_ports]
                    for nexus, made in self.registrations.items()
                ],
            },
            separators=(",", ":"),
        )

    @classmethod
    def decode(cls, text: str) -> "PersistentReservation":
        """A state that was kept because of APTPL; raises ValueError when it is none."""
        try:
            record = json.loads(text)
            registrations = {
                decode_nexus(name, isid, port): Registration(int(key), bool(all_target_ports))
                for name, isid, port, key, all_target_ports in record["registrations"]
            }
            kind = None if record["type"] is None else ReservationType(record["type"])
            holder = None if record["holder"] is None else decode_nexus(*record["holder"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a persistent reservation: {error!r}") from None
        state = cls(registrations, kind, holder, aptpl=True)
        state.check()
        return state

    def check(self) -> None:
        """Raises ValueError when the state is one that no sequence of requests leads to."""
        if len(self.registrations) > MAXIMUM_REGISTRATIONS:
            raise ValueError(f"{len(self.registrations)} registrations")
        if not all(0 < made.key < 1 << 64 for made in self.registrations.values()):
            raise ValueError("a reservation key is 0 or longer than eight bytes")
        single = self.reservation_type is not None and not self.reservation_type.all_registrants
        if single is (self.holder is None) or (single and self.holder not in self.registrations):
            raise ValueError("the holder is not registered")
        if self.reservation_type is not None and not self.registrations:
            raise ValueError("a reservation without a registration")


def _tell(nexuses: Iterable[ITNexus], but: ITNexus, condition: AscAscq) -> tuple[tuple[ITNexus, AscAscq], ...]:
    return tuple((nexus, condition) for nexus in nexuses if nexus != but)


def encode_nexus(nexus: ITNexus) -> tuple[str, str, int]:
    """As JSON has it: name, ISID in hexadecimal digits, relative target port."""
    return nexus.initiator_name, nexus.isid.hex(), nexus.target_port


def decode_nexus(name: str, isid: str, port: int) -> ITNexus:
    """From :func:`encode_nexus`'s form; raises TypeError or ValueError on anything else."""
    return ITNexus(str(name), bytes.fromhex(isid), int(port))
