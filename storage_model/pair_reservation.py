"""The persistent reservation of a pair: one table, the same at both arrays, changed by numbered entries.

The array that serialises the pair makes an entry out of an order and votes for it durably; from then on it lets in
only whom the tables before and after the entry both let in. The other array's vote, durable as well, decides it, so
that its own table is never in doubt. An entry that was voted for is never taken back, but where the other array has
said that it does not vote for it. So what either array lets in, the other one does not contradict, whatever is lost.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from storage_model.nexus import ITNexus
from storage_model.persistent_reservation import PersistentReservation, decode_nexus, encode_nexus
from storage_model.spec.scsi_sense import AscAscq

SECOND_ARRAY = 0x8000
"""Added to the relative target ports of the array with the higher serial number, which are below that: in the pair's
table, equal ports of the two arrays are different ones."""

T = TypeVar("T")


def first_port(serial: str, other_serial: str) -> int:
    """What is added to the relative target ports of the array ``serial`` in the table of a pair."""
    return 0 if serial < other_serial else SECOND_ARRAY


@dataclass(frozen=True, slots=True)
class ReservationEntry:
    """The table after a change. ``epoch`` is the pair's when it was made; ``number`` counts the changes of the pair."""

    epoch: int = 0
    number: int = 0
    state: PersistentReservation = field(default_factory=PersistentReservation)

    @property
    def order(self) -> tuple[int, int]:
        """Greater in a later entry, also where an operator let one array go on alone."""
        return self.epoch, self.number

    def encode(self) -> str:
        """One line of JSON: the form in the metadata store and on the link."""
        state = self.state
        return json.dumps([self.epoch, self.number, state.generation, state.aptpl, state.encode()])

    @classmethod
    def decode(cls, text: str) -> "ReservationEntry":
        """From :meth:`encode`'s form; raises ValueError on anything else."""
        return _decoded("reservation entry", text, _entry)


@dataclass(frozen=True, slots=True)
class ReservationEffects:
    """What comes of an entry beside the table: unit attentions, and whose commands PREEMPT AND ABORT aborts.

    All but the command itself: that of ``requester`` with ``tag``.
    """

    requester: ITNexus
    tag: int
    attentions: tuple[tuple[ITNexus, AscAscq], ...] = ()
    aborts: frozenset[ITNexus] = frozenset()


@dataclass(frozen=True, slots=True)
class ReservationProposal:
    """An entry that its maker has voted for. ``after`` is the order of the entry before it."""

    entry: ReservationEntry
    after: tuple[int, int]
    effects: ReservationEffects

    def encode(self) -> str:
        """One line of JSON: the form in the metadata store and on the link."""
        effects = self.effects
        return json.dumps(
            {
                "entry": self.entry.encode(),
                "after": self.after,
                "requester": encode_nexus(effects.requester),
                "tag": effects.tag,
                "attentions": [[*encode_nexus(nexus), int(code)] for nexus, code in effects.attentions],
                "aborts": [encode_nexus(nexus) for nexus in effects.aborts],
            }
        )

    @classmethod
    def decode(cls, text: str) -> "ReservationProposal":
        """From :meth:`encode`'s form; raises ValueError on anything else."""
        return _decoded("reservation proposal", text, _proposal)


@dataclass(frozen=True, slots=True)
class ReservationRecord:
    """What one array durably knows: the table in force, and its own vote for the next entry while that is undecided."""

    decided: ReservationEntry = field(default_factory=ReservationEntry)
    accepted: ReservationProposal | None = None

    @property
    def in_use(self) -> bool:
        """True if anybody is registered, or may be."""
        accepted = self.accepted
        return bool(self.decided.state.registrations or (accepted and accepted.entry.state.registrations))


def seen_from(state: PersistentReservation, base: int) -> PersistentReservation:
    """The table with the ports of the array whose first port is ``base`` as its hosts know them.

    The other array's are above 8000h. The same function leads back.
    """
    if not base:
        return state
    return replace(
        state,
        registrations={nexus_seen_from(nexus, base): made for nexus, made in state.registrations.items()},
        holder=None if state.holder is None else nexus_seen_from(state.holder, base),
    )


def nexus_seen_from(nexus: ITNexus, base: int) -> ITNexus:
    """See :func:`seen_from`."""
    return replace(nexus, target_port=nexus.target_port ^ base)


def attentions_missed(
    old: PersistentReservation, new: PersistentReservation
) -> tuple[tuple[tuple[ITNexus, AscAscq], ...], frozenset[ITNexus]]:
    """The unit attentions of changes that are only known by their outcome, and who lost its registration by them."""
    lost = frozenset(old.registrations.keys() - new.registrations.keys())
    attentions = [(nexus, AscAscq.REGISTRATIONS_PREEMPTED) for nexus in lost]
    if old.reservation_type not in (None, new.reservation_type):
        kept = old.registrations.keys() & new.registrations.keys()
        attentions += [(nexus, AscAscq.RESERVATIONS_RELEASED) for nexus in kept if not new.holds(nexus)]
    return tuple(attentions), lost


def _decoded(what: str, text: str, read: Callable[[Any], T]) -> T:
    try:
        return read(json.loads(text))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not a {what}: {text[:80]!r}: {error!r}") from None


def _entry(fields: Any) -> ReservationEntry:
    epoch, number, generation, aptpl, table = fields
    if not all(isinstance(each, int) and 0 <= each <= 0xFFFFFFFF for each in (epoch, number, generation)):
        raise ValueError("a number has 32 bits")
    state = replace(PersistentReservation.decode(table), generation=generation, aptpl=bool(aptpl))
    return ReservationEntry(epoch, number, state)


def _proposal(fields: Any) -> ReservationProposal:
    epoch, number = fields["after"]
    effects = ReservationEffects(
        decode_nexus(*fields["requester"]),
        int(fields["tag"]),
        tuple((decode_nexus(*nexus), AscAscq(code)) for *nexus, code in fields["attentions"]),
        frozenset(decode_nexus(*nexus) for nexus in fields["aborts"]),
    )
    return ReservationProposal(ReservationEntry.decode(fields["entry"]), (int(epoch), int(number)), effects)
