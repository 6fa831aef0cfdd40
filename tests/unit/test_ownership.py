"""One value per epoch, whatever the network and the crashes do: messages are lost, doubled, late and out of order.

The invariants I1 (at most one value per epoch; votes are durable before they are told) and I2 (what counts as decided
has a majority of durable votes) are checked at every step, and at the end that nothing stays in doubt once the network
is whole.
"""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from storage_model.errors import LocalProtocolError
from storage_model.nexus import ITNexus
from storage_model.ownership import Accepted, Decide, Effect, EpochRegister, Propose, Vote
from storage_model.pair import Owner, PairEpoch
from storage_model.pair_state import PairState

A, B, C = "30095", "30096", "30097"
HOST = ITNexus("iqn.2026-11.org.pairvol:host", bytes(6))


def epoch(number: int, p_serial: str = A, tag: str = "") -> PairEpoch:
    return PairEpoch(number, p_serial, PairState.PSUS, owner=Owner(tag, HOST) if tag else None)


def register(serial: str, decided: PairEpoch | None = None, accepted: PairEpoch | None = None, voters=(A, B)):
    return EpochRegister(serial, voters, decided or epoch(7), accepted)


# ------------------------------------------------------------------------------------------- one step at a time


def test_a_change_between_two_arrays() -> None:
    a, b, value = register(A), register(B), epoch(8, B, "new")
    assert a.propose(value) == [Vote(value)]
    assert a.voted(value) == [Propose(B, value, epoch(7))]
    assert a.in_doubt and a.decided == epoch(7)
    assert b.proposed(A, value, epoch(7)) == [Vote(value)]
    assert not b.in_doubt  # not before its vote is durable
    assert b.own_vote_decides
    assert b.voted(value) == [Accepted(A, 8), Decide(value)]
    assert a.acknowledged(B, 8) == [Decide(value)]
    assert a.decided == b.decided == value
    assert b.leads and not a.leads  # the P-VOL moved


def test_only_the_leader_proposes_one_value_of_the_next_epoch() -> None:
    with pytest.raises(LocalProtocolError):
        register(B).propose(epoch(8))
    for number in (6, 7, 9):
        with pytest.raises(LocalProtocolError):
            register(A).propose(epoch(number))
    with pytest.raises(LocalProtocolError):
        register(A, accepted=epoch(8)).propose(epoch(8, tag="other"))


def test_a_vote_cannot_be_changed() -> None:
    a = register(A, accepted=epoch(8, tag="first"))
    with pytest.raises(LocalProtocolError):
        a.voted(epoch(8, tag="second"))
    with pytest.raises(LocalProtocolError):
        register(B).voted(epoch(9))


def test_without_a_pair_the_lower_serial_number_leads() -> None:
    single = PairEpoch(0)
    assert register(A, single).leads and not register(B, single).leads


def test_follower_answers_the_same_proposal_again_and_no_other() -> None:
    value = epoch(8, tag="voted for")
    b = register(B, voters=(A, B, C, "30098", "30099"))
    b.proposed(A, value, epoch(7))
    assert b.voted(value) == [Accepted(A, 8)]
    assert b.proposed(A, value, epoch(7)) == [Accepted(A, 8)]
    assert b.proposed(A, epoch(8, tag="another"), epoch(7)) == []


def test_follower_that_crashed_between_vote_and_decision_decides_when_asked_again() -> None:
    value = epoch(8)
    b = register(B, accepted=value)
    assert b.proposed(A, value, epoch(7)) == [Accepted(A, 8), Decide(value)]
    assert not b.in_doubt


def test_lost_acknowledgement_is_given_again_after_the_decision() -> None:
    value = epoch(8, B)
    b = register(B, decided=value)
    assert b.proposed(A, value, epoch(7)) == [Accepted(A, 8)]


@pytest.mark.parametrize(
    ("sender", "value", "decided"),
    [
        (C, epoch(8), epoch(7)),  # does not lead
        (A, epoch(9), epoch(7)),  # leaves an epoch out
        (A, epoch(7, tag="other"), epoch(6)),  # is behind
        (A, epoch(8), epoch(7, tag="other")),  # comes of another past
    ],
)
def test_stale_and_unlawful_proposals_get_no_vote(sender: str, value: PairEpoch, decided: PairEpoch) -> None:
    assert register(B, voters=(A, B, C)).proposed(sender, value, decided) == []


def test_follower_that_is_behind_catches_up_with_the_proposal() -> None:
    effects = register(B, epoch(5)).proposed(A, epoch(8), epoch(7))
    assert effects == [Decide(epoch(7)), Vote(epoch(8))]


@pytest.mark.parametrize(("sender", "number"), [(B, 7), (B, 9), ("40000", 8)])
def test_late_and_foreign_acknowledgements_count_for_nothing(sender: str, number: int) -> None:
    a = register(A, accepted=epoch(8))
    assert a.acknowledged(sender, number) == []
    assert a.in_doubt
    assert register(A).acknowledged(B, 8) == []


def test_doubled_acknowledgement_is_one_vote() -> None:
    voters = (A, B, C, "30098", "30099")
    a = register(A, voters=voters)
    a.voted(epoch(8))
    assert a.acknowledged(B, 8) == [] and a.acknowledged(B, 8) == []
    assert a.acknowledged(C, 8) == [Decide(epoch(8))]


def test_what_is_in_doubt_is_proposed_again_at_reconnection_by_the_leader_alone() -> None:
    value = epoch(8, B)
    assert register(A, accepted=value).reconnected(B) == [Propose(B, value, epoch(7))]
    assert register(B, accepted=value).reconnected(A) == []
    assert register(A).reconnected(B) == []
    assert register(A, accepted=value).reconnected("40000") == []


def test_a_later_decision_ends_a_doubt_and_an_earlier_one_is_no_news() -> None:
    a = register(A, accepted=epoch(8))
    assert a.heard_decided(epoch(7, tag="other")) == []
    assert a.heard_decided(epoch(9)) == [Decide(epoch(9))]
    assert not a.in_doubt and a.decided == epoch(9)


@pytest.mark.parametrize(("count", "majority"), [(2, 2), (3, 2), (4, 3), (5, 3)])
def test_majority(count: int, majority: int) -> None:
    voters = tuple(str(30095 + number) for number in range(count))
    assert register(A, voters=voters).majority == majority
    assert register(B, voters=voters).own_vote_decides is (majority == 2)
    assert not register(A, voters=voters).own_vote_decides


# ------------------------------------------------------------------------------------------ everything at once


class Voter:
    """A register, what is durable of it, and at most one vote being saved: a caller changes one thing at a time."""

    def __init__(self, serial: str, voters: tuple[str, ...]) -> None:
        self.serial = serial
        self.voters = voters
        self.decided = epoch(0)
        self.accepted: PairEpoch | None = None
        self.saving: PairEpoch | None = None
        self.restart()

    def restart(self) -> None:
        self.saving = None
        self.register = EpochRegister(self.serial, self.voters, self.decided, self.accepted)


class Agreement(RuleBasedStateMachine):
    voters: tuple[str, ...] = (A, B)

    @initialize()
    def begin(self) -> None:
        self.nodes = {serial: Voter(serial, self.voters) for serial in self.voters}
        self.messages: list[tuple[str, str, Effect | PairEpoch]] = []
        self.durable_votes: dict[int, dict[str, PairEpoch]] = {}
        self.values: dict[int, PairEpoch] = {0: epoch(0)}
        self.tags = 0

    # ---- what happens

    @rule(data=st.data())
    def propose(self, data: st.DataObject) -> None:
        leaders = [n for n in self.nodes.values() if n.register.leads and not n.register.in_doubt and not n.saving]
        if not leaders:
            return
        node = data.draw(st.sampled_from(leaders))
        self.tags += 1
        p_serial = data.draw(st.sampled_from(self.voters))
        self.carry_out(node, node.register.propose(epoch(node.register.decided.epoch + 1, p_serial, str(self.tags))))

    @rule(data=st.data(), told=st.booleans())
    def save(self, data: st.DataObject, told: bool) -> None:
        """The vote becomes durable; the array may crash before it knows."""
        saving = [node for node in self.nodes.values() if node.saving]
        if not saving:
            return
        node = data.draw(st.sampled_from(saving))
        value, node.saving = node.saving, None
        assert value is not None
        node.accepted = value
        self.durable_votes.setdefault(value.epoch, {})[node.serial] = value
        if told:
            self.carry_out(node, node.register.voted(value))
        else:
            node.restart()

    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        self.nodes[data.draw(st.sampled_from(self.voters))].restart()

    @precondition(lambda self: self.messages)
    @rule(data=st.data(), kept=st.booleans())
    def deliver(self, data: st.DataObject, kept: bool) -> None:
        """In any order, and again."""
        at = data.draw(st.integers(0, len(self.messages) - 1))
        message = self.messages[at] if kept else self.messages.pop(at)
        self.receive(*message)

    @precondition(lambda self: self.messages)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        self.messages.pop(data.draw(st.integers(0, len(self.messages) - 1)))

    @rule(data=st.data())
    def reconnect(self, data: st.DataObject) -> None:
        sender = data.draw(st.sampled_from(self.voters))
        receiver = data.draw(st.sampled_from([serial for serial in self.voters if serial != sender]))
        self.meet(self.nodes[sender], receiver)

    # ---- how it is carried out

    def meet(self, node: Voter, peer: str) -> None:
        self.messages.append((node.serial, peer, node.register.decided))
        if not node.saving:
            self.carry_out(node, node.register.reconnected(peer))

    def receive(self, sender: str, to: str, message: Effect | PairEpoch) -> None:
        node = self.nodes[to]
        if node.saving:
            return  # a message that comes now is lost: the caller does one thing at a time
        if isinstance(message, Propose):
            self.carry_out(node, node.register.proposed(sender, message.value, message.decided))
        elif isinstance(message, Accepted):
            self.carry_out(node, node.register.acknowledged(sender, message.epoch))
        elif isinstance(message, PairEpoch):
            assert self.values[message.epoch] == message
            self.carry_out(node, node.register.heard_decided(message))

    def carry_out(self, node: Voter, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Vote):
                node.saving = effect.value
            elif isinstance(effect, Decide):
                self.decide(node, effect.value)
            else:
                number = effect.value.epoch if isinstance(effect, Propose) else effect.epoch
                durable = node.accepted or node.decided
                assert durable.epoch >= number or node.decided.epoch >= number, "I1: told before it was durable"
                if isinstance(effect, Propose):
                    assert self.durable_votes[number][node.serial] == effect.value
                self.messages.append((node.serial, effect.to, effect))

    def decide(self, node: Voter, value: PairEpoch) -> None:
        assert self.values.setdefault(value.epoch, value) == value, "I1: two values of one epoch"
        votes = list(self.durable_votes.get(value.epoch, {}).values())
        assert votes.count(value) > len(self.voters) // 2, "I2: decided without a majority"
        node.decided, node.accepted = value, None

    def teardown(self) -> None:
        """The network becomes whole: nothing stays in doubt."""
        if not hasattr(self, "nodes"):
            return
        self.messages.clear()
        for node in self.nodes.values():
            node.restart()
        for _ in range(4):
            for node in self.nodes.values():
                for peer in self.voters:
                    if peer != node.serial:
                        self.meet(node, peer)
            while self.messages:
                self.receive(*self.messages.pop(0))
                for node in self.nodes.values():
                    if node.saving:
                        value, node.saving = node.saving, None
                        node.accepted = value
                        self.durable_votes.setdefault(value.epoch, {})[node.serial] = value
                        self.carry_out(node, node.register.voted(value))
        assert len({node.register.decided for node in self.nodes.values()}) == 1
        assert not any(node.register.in_doubt for node in self.nodes.values())


class AgreementOfThree(Agreement):
    voters = (A, B, C)


class AgreementOfFive(Agreement):
    voters = (A, B, C, "30098", "30099")


TestAgreement = Agreement.TestCase
TestAgreementOfThree = AgreementOfThree.TestCase
TestAgreementOfFive = AgreementOfFive.TestCase
_SETTINGS = settings(max_examples=60, stateful_step_count=60)
TestAgreement.settings = TestAgreementOfThree.settings = TestAgreementOfFive.settings = _SETTINGS


def test_the_checker_catches_a_register_that_votes_twice() -> None:
    """A checker that cannot fail proves nothing."""
    machine = Agreement()
    machine.begin()
    b = machine.nodes[B]
    machine.carry_out(machine.nodes[A], [Vote(epoch(1, A, "first"))])
    machine.nodes[A].saving = None
    machine.durable_votes[1] = {A: epoch(1, A, "first"), B: epoch(1, A, "first")}
    machine.decide(b, epoch(1, A, "first"))
    machine.durable_votes[1] = {A: epoch(1, A, "second"), B: epoch(1, A, "second")}
    with pytest.raises(AssertionError, match="I1"):
        machine.decide(machine.nodes[A], epoch(1, A, "second"))
    with pytest.raises(AssertionError, match="I2"):
        machine.decide(machine.nodes[A], replace(epoch(2, A, "third")))
    with pytest.raises(AssertionError, match="I1"):
        machine.carry_out(b, [Accepted(A, 2)])
