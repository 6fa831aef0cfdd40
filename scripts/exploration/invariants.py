"""What must hold in every state, and what must hold when nothing is under way any more."""

from scripts.exploration.array_machine import SERIALS, DiskImage, View, nexus_of
from scripts.exploration.state import State
from scripts.exploration.wording import epoch_words, owner_words
from scripts.exploration.world import Broken, World
from storage_model.pair import PairEpoch, PairRecord
from storage_model.pair_state import PairRole, PairState

CHECKED = {
    "I1": "at most one value per epoch, no vote taken back or given twice, none told before it is durable",
    "I2": "what an array acts on as decided is durably voted for by both; GOOD only to its owner",
    "I3": "at most one valid owner at any instant; GOOD for one epoch to one host at most",
    "I4": "an acknowledged write is what the owner reads, and on both media in PAIR",
    "I5": "no write of a past epoch lands on the S-VOL",
    "I10": "the P-VOL of an owner is never a copy that lacks acknowledged writes, nor one that a takeover left"
    " behind; who was promoted by an operator is not demoted by another one's takeover",
    "loser": "RESERVATION CONFLICT only after the local reservation was given back; no owner that was refused",
    "rest": "connected and at rest: both arrays agree, nothing is in doubt, nobody waits; no internal error anywhere",
}


class Checker:
    """Judges each step; what concerns the arrays alone is judged once per pair of their states."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._judged: dict[tuple[int, int], str] = {}
        self._moved: dict[tuple[int, int, int], str] = {}

    def check_step(self, before: State, after: State) -> None:
        """What a step must not do, wherever it leads. Raises Broken."""
        for site, (old, new) in enumerate(zip(before.arrays, after.arrays, strict=True)):
            if old != new:
                self._check_move(site, old, new)

    def check_state(self, before: State, after: State) -> None:
        """What must hold in a state that was not seen yet. Raises Broken."""
        if before.arrays != after.arrays:
            self._check_both(after.arrays)
        if before.hosts != after.hosts or before.good != after.good:
            self._check_hosts(before, after)
        if before.arrays != after.arrays or before.possible != after.possible:
            self._check_reads(after)
        self._check_rest(after)

    def _check_move(self, site: int, before: int, after: int) -> None:
        key = site, before, after
        words = self._moved.get(key)
        if words is None:
            views = self._world.arrays[site].views
            words = self._moved[key] = "" if before == after else _moved(site, views[before], views[after])
        if words:
            raise Broken(words)

    def _check_both(self, arrays: tuple[int, int]) -> None:
        words = self._judged.get(arrays)
        if words is None:
            views = self._world.arrays[0].views[arrays[0]], self._world.arrays[1].views[arrays[1]]
            words = self._judged[arrays] = _both(*views)
        if words:
            raise Broken(words)

    def _check_hosts(self, before: State, after: State) -> None:
        for number in self._world.scope.hosts:
            errors = self._world.shim_view(after, number).errors
            if errors:
                raise Broken(f"shim {number + 1}: {errors[0]}")
        for epoch, number in set(after.good) - set(before.good):
            values = [self._world.view(after, site).image for site in (0, 1)]
            if not any(_won_by(image, epoch, number, self._world) for image in values):
                raise Broken(f"I2: host {number + 1} is told GOOD for epoch {epoch}, which it does not own")

    def _check_reads(self, state: State) -> None:
        for site in (0, 1):
            view = self._world.view(state, site)
            if view.owner is None and not (view.role is PairRole.P_VOL and view.record.state is PairState.PAIR):
                continue
            source = self._world.view(state, 1 - site) if view.fetches else view
            if source.image.content not in state.possible:
                raise Broken(
                    f"I4: the P-VOL at {'AB'[site]} gives {source.image.content}, and only {state.possible} may be"
                    f" read: an acknowledged write is lost"
                )

    def _check_rest(self, state: State) -> None:
        if any(state.frames) or not all(state.ends):
            return
        a, b = (self._world.view(state, site) for site in (0, 1))
        if not all(view.resting and view.saving is None for view in (a, b)):
            return
        if not (a.idle and b.idle):
            raise Broken("rest: an array waits, and there is nothing under way that it could wait for")
        for host, number in zip(state.hosts, self._world.scope.hosts, strict=True):
            if host.commands or host.answers or self._world.shim_view(state, number).arbitrating:
                return
        if _by_force(a.record, b.record):
            return
        if a.record.decided != b.record.decided or a.record.accepted or b.record.accepted:
            raise Broken("rest: at rest and connected, the arrays do not agree, or an epoch is in doubt")
        if a.record.state is not b.record.state:
            raise Broken(f"rest: {a.record.state.name} at A, {b.record.state.name} at B")
        if a.record.state is PairState.PAIR and a.image.content != b.image.content:
            raise Broken(f"I4: in PAIR and at rest, A has {a.image.content} and B {b.image.content}")
        owner = a.record.decided.owner
        for host, number in zip(state.hosts, self._world.scope.hosts, strict=True):
            nexus = nexus_of(number, self._world.scope.sites[number])
            if owner is not None and owner.nexus == nexus and host.heard in ("CONFLICT", "RELEASE"):
                raise Broken(f"loser: host {number + 1} owns the pair at rest, and heard {host.heard} last")


def _moved(site: int, before: View, after: View) -> str:
    """I1, for one array: what may become of its durable record."""
    name = "AB"[site]
    if after.errors:
        return f"rest: array {name}: {after.errors[0]}"
    old, new = before.image.record, after.image.record
    if new.decided.epoch < old.decided.epoch:
        return f"I1: array {name} forgets a decided epoch"
    if new.decided.epoch == old.decided.epoch and new.decided != old.decided:
        return f"I1: array {name} changes the value of epoch {new.decided.epoch}"
    serial = SERIALS[site]
    if old.decided.outdated == serial and new.decided.role_of(serial) is PairRole.P_VOL:
        return f"I10: array {name} is outdated and becomes the P-VOL, which no operator named good"
    if old.decided.outdated == SERIALS[1 - site] and new.decided.outdated == serial:
        return f"I10: array {name}, promoted by its operator, is left behind by {epoch_words(new.decided)}"
    vote = old.accepted
    if vote is None:
        return ""
    if new.decided.epoch == vote.epoch and new.decided.outdated == serial:
        kept: PairEpoch | None = vote  # an operator has decided that epoch in place of this array
    elif new.decided.epoch >= vote.epoch:
        kept = new.decided if new.decided.epoch == vote.epoch else vote
    else:
        kept = new.accepted
    if kept != vote:
        now = "none" if kept is None else epoch_words(kept)
        return f"I1: array {name} had voted for {epoch_words(vote)}, and that vote becomes {now}"
    return ""


def _both(a: View, b: View) -> str:
    """I1 to I3, for both arrays at one instant."""
    one, other = a.image.record, b.image.record
    if one.decided.epoch == other.decided.epoch and one.decided != other.decided and not _by_force(one, other):
        return f"I1: two values of one epoch: {epoch_words(one.decided)} at A, {epoch_words(other.decided)} at B"
    for site, mine, theirs in ((0, a, b), (1, b, a)):
        value = mine.record.decided
        if value.outdated:
            continue  # decided by an operator in place of the other array
        for image, who in ((mine.image, "its own"), (theirs.image, "the other array's")):
            if not _voted(image, value):
                return f"I2: array {'AB'[site]} acts on {epoch_words(value)}, without {who} durable vote"
    if a.owner is not None and b.owner is not None:
        return f"I3: {owner_words(a.owner)} and {owner_words(b.owner)} are both valid"
    return ""


def _by_force(one: PairRecord, other: PairRecord) -> bool:
    """Operators have promoted both: they stay apart, and their epochs with them."""
    return {one.decided.outdated, other.decided.outdated} == set(SERIALS)


def _voted(image: DiskImage, value: PairEpoch) -> bool:
    record = image.record
    return value.epoch < record.decided.epoch or value in (record.decided, record.accepted)


def _won_by(image: DiskImage, epoch: int, number: int, world: World) -> bool:
    """True also if it is history already: the array was asked, and answered, while it held."""
    site = world.scope.sites[number]
    decided = image.record.decided
    return decided.epoch > epoch or (decided.epoch == epoch and decided.owned_by(SERIALS[site], nexus_of(number, site)))
