"""The machine, and its promises under any interleaving: no partition has two owners, all get one, epochs never go back.

A model of clients does what real ones do: they give up before they take, lose answers, and come back with what they
know. The coordinator is killed at any point, and what was not saved then was never there.
"""

from dataclasses import dataclass
from itertools import count
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from streamlake.coordinator.classic.api import GroupError
from streamlake.coordinator.consumer.api import (
    NO_PLACES,
    GroupState,
    HeartbeatAnswer,
    HeartbeatRequest,
    Places,
    TopicShape,
)
from streamlake.coordinator.consumer.group import SAVE_RETRY_MS, ConsumerGroup
from streamlake.coordinator.consumer.stored import SavedConsumerGroup
from streamlake.coordinator.machine import NEVER_MS, Answer, Save
from streamlake.coordinator.settings import GroupSettings
from streamlake.core.errors import Fenced, Unavailable

E = GroupError
SETTINGS = GroupSettings(consumer_session_timeout_ms=1_000, consumer_heartbeat_interval_ms=100, group_size_max=4)
REBALANCE_MS = 5_000


def shape(name: str, partitions: int) -> TopicShape:
    return TopicShape(name.encode().ljust(16, b"-"), partitions)


class Coordinator:
    """The machine, and a store that holds what was saved. `saves` wait until `store` lets them."""

    def __init__(self, **topics: int) -> None:
        self.topics = {name: shape(name, partitions) for name, partitions in topics.items()}
        self.now_ms = 0
        self.stored: SavedConsumerGroup | None = None
        self.saves: list[Save] = []
        self.answers: dict[int, HeartbeatAnswer] = {}
        self._tokens = count()
        self._ids = count(1)
        self.group = ConsumerGroup("g", SETTINGS, self.topics.get, self._uuid)

    def _uuid(self) -> UUID:
        return UUID(int=next(self._ids))

    def _deliver(self) -> None:
        for effect in self.group.take_effects():
            if isinstance(effect, Save):
                self.saves.append(effect)
            else:
                assert isinstance(effect, Answer)
                assert effect.token not in self.answers
                self.answers[effect.token] = effect.answer

    def send(self, member_id: str, epoch: int, matched: frozenset[str] | None = None, **fields: object) -> int:
        token = next(self._tokens)
        self.group.heartbeat(request(member_id, epoch, **fields), token, self.now_ms, matched)
        self._deliver()
        return token

    def ask(self, member_id: str, epoch: int, matched: frozenset[str] | None = None, **fields: object):
        token = self.send(member_id, epoch, matched, **fields)
        self.store()
        return self.answers[token]

    def join(self, member_id: str, topics: tuple[str, ...] = ("t",), **fields: object):
        full = {"rebalance_timeout_ms": REBALANCE_MS, "topics": topics, "owned": NO_PLACES, **fields}
        return self.ask(member_id, 0, **full)

    def store(self, error: Exception | None = None) -> None:
        """Let all saves land, or fail."""
        while self.saves:
            save = self.saves.pop(0)
            if error is None:
                self.stored = save.saved
            self.group.saved(save, error, self.now_ms)
            self._deliver()
            if error is not None:
                return

    def change(self, name: str, partitions: int | None, **matched: frozenset[str]) -> None:
        if partitions is None:
            self.topics.pop(name, None)
        else:
            self.topics[name] = shape(name, partitions)
        self.group.topics_changed(matched, self.now_ms)
        self._deliver()

    def pass_time(self, ms: int) -> None:
        self.now_ms += ms
        if self.group.wake_ms <= self.now_ms:
            self.group.tick(self.now_ms)
            self._deliver()

    def restart(self) -> None:
        """Killed, and another one reads what is stored."""
        self.saves.clear()
        if self.stored is None:
            self.group = ConsumerGroup("g", SETTINGS, self.topics.get, self._uuid)
        else:
            self.group = ConsumerGroup.restored("g", self.stored, self.now_ms, SETTINGS, self.topics.get, self._uuid)
        self.group.topics_changed({}, self.now_ms)
        self._deliver()


def request(member_id: str, epoch: int, **fields: object) -> HeartbeatRequest:
    values: dict[str, object] = {
        "group_id": "g",
        "instance_id": None,
        "rack_id": None,
        "client_id": "c",
        "client_host": "h",
        "rebalance_timeout_ms": None,
        "topics": None,
        "regex": None,
        "assignor": None,
        "owned": None,
        **fields,
    }
    return HeartbeatRequest(member_id=member_id, epoch=epoch, **values)


def of(*partitions: int, topic: str = "t") -> Places:
    return frozenset((shape(topic, 0).id, partition) for partition in partitions)


# --- one member after the other


def test_the_first_member_gets_all_when_it_is_durable() -> None:
    it = Coordinator(t=3)
    token = it.send("m1", 0, topics=("t",), rebalance_timeout_ms=1, owned=NO_PLACES)
    assert it.answers == {}, "nothing is told before it is stored"
    it.store()
    answer = it.answers[token]
    assert (answer.error, answer.member_id, answer.assignment) == (E.NONE, "m1", of(0, 1, 2))
    assert (answer.epoch, answer.heartbeat_interval_ms) == (it.group.epoch, 100)
    assert it.group.state is GroupState.STABLE


def test_a_heartbeat_without_news_costs_nothing() -> None:
    it = Coordinator(t=3)
    epoch = it.join("m1").epoch
    token = it.send("m1", epoch)
    assert not it.saves
    assert (it.answers[token].epoch, it.answers[token].assignment) == (epoch, None)
    full = it.send("m1", epoch, topics=("t",), rebalance_timeout_ms=REBALANCE_MS, owned=of(0, 1, 2))
    assert not it.saves
    assert it.answers[full].assignment == of(0, 1, 2), "who sends all is told all"


def test_partitions_are_given_up_before_they_are_given_out() -> None:
    it = Coordinator(t=2)
    first = it.join("m1")
    second = it.join("m2")
    assert second.assignment == NO_PLACES
    assert it.group.state is GroupState.RECONCILING
    (told,) = [it.ask("m1", first.epoch, owned=of(0, 1)).assignment]
    assert told is not None
    assert len(told) == 1
    (left,) = of(0, 1) - told
    assert it.ask("m2", second.epoch).assignment is None, "the other one still has it"
    acknowledged = it.ask("m1", first.epoch, owned=told)
    assert acknowledged.epoch > first.epoch
    assert it.ask("m2", second.epoch).assignment == frozenset([left])
    assert it.group.state is GroupState.STABLE


def test_who_does_not_give_up_in_time_is_removed() -> None:
    it = Coordinator(t=2)
    first = it.join("m1", rebalance_timeout_ms=2_500)
    second = it.join("m2")
    for _ in range(3):
        it.ask("m1", first.epoch, owned=of(0, 1))
        second = it.ask("m2", second.epoch)
        it.pass_time(900)
    assert it.ask("m1", first.epoch, owned=of(0, 1)).error is E.UNKNOWN_MEMBER_ID
    assert it.ask("m2", second.epoch).assignment == of(0, 1)


def test_who_sends_no_heartbeat_is_removed() -> None:
    it = Coordinator(t=1)
    epoch = it.join("m1").epoch
    it.pass_time(999)
    assert it.ask("m1", epoch).error is E.NONE
    it.pass_time(999)
    assert it.group.member_count == 1
    it.pass_time(1)
    it.store()
    assert (it.group.member_count, it.group.expired_members) == (0, 1)
    assert it.group.vacant
    assert it.ask("m1", epoch).error is E.UNKNOWN_MEMBER_ID


def test_epochs_of_members() -> None:
    it = Coordinator(t=2)
    epoch = it.join("m1").epoch
    it.change("t", 4)
    new = it.ask("m1", epoch, owned=of(0, 1))
    assert (new.epoch > epoch, new.assignment) == (True, of(0, 1, 2, 3))
    assert it.ask("m1", epoch, owned=of(0, 1)).epoch == new.epoch, "the answer was lost"
    assert it.ask("m1", epoch).error is E.FENCED_MEMBER_EPOCH, "it does not say what it has"
    assert it.ask("m1", epoch, owned=of(0, 9)).error is E.FENCED_MEMBER_EPOCH, "it has what it may not"
    assert it.ask("m1", new.epoch + 1).error is E.FENCED_MEMBER_EPOCH
    assert it.ask("m1", epoch - 1, owned=NO_PLACES).error is E.FENCED_MEMBER_EPOCH
    assert it.ask("m2", 5).error is E.UNKNOWN_MEMBER_ID
    assert it.join("m1").assignment == of(0, 1, 2, 3), "who is fenced joins again"


def test_commits_and_fetches_need_the_epoch() -> None:
    it = Coordinator(t=2)
    assert it.group.check_commit("", None, -1, 0) is E.NONE, "nobody is there"
    epoch = it.join("m1").epoch
    assert it.group.check_commit("m1", None, epoch, 0) is E.NONE
    assert it.group.check_commit("m1", None, epoch - 1, 0) is E.STALE_MEMBER_EPOCH
    assert it.group.check_commit("m1", None, -1, 0) is E.STALE_MEMBER_EPOCH
    assert it.group.check_commit("", None, -1, 0) is E.UNKNOWN_MEMBER_ID
    assert it.group.check_fetch("m1", epoch + 1) is E.STALE_MEMBER_EPOCH
    assert it.group.check_fetch("m2", epoch) is E.UNKNOWN_MEMBER_ID


def test_leaving() -> None:
    it = Coordinator(t=2)
    it.join("m1")
    second = it.join("m2")
    left = it.ask("m1", -1)
    assert (left.error, left.member_id, left.epoch) == (E.NONE, "m1", -1)
    assert it.ask("m2", second.epoch).assignment == of(0, 1)
    assert it.ask("m1", -1).error is E.UNKNOWN_MEMBER_ID
    assert it.ask("m2", -1).error is E.NONE
    assert (it.group.state, it.group.vacant) == (GroupState.EMPTY, True)


def test_a_full_group_takes_no_more() -> None:
    it = Coordinator(t=2)
    for number in range(4):
        assert it.join(f"m{number}").error is E.NONE
    assert it.join("m5").error is E.GROUP_MAX_SIZE_REACHED
    assert it.join("m1").error is E.NONE, "a member joins again"


def test_the_coordinator_gives_a_name_to_who_has_none() -> None:
    it = Coordinator(t=1)
    assert UUID(it.join("").member_id).int > 0


# --- static members


def test_a_static_member_returns_to_what_it_had() -> None:
    it = Coordinator(t=4)
    first = it.join("m1", instance_id="one")
    other = it.join("m2")
    told = it.ask("m1", first.epoch, owned=of(0, 1, 2, 3), instance_id="one").assignment
    it.ask("m1", first.epoch, owned=told, instance_id="one")
    other = it.ask("m2", other.epoch)
    epoch = it.group.epoch
    assert it.join("m3", instance_id="one").error is E.UNRELEASED_INSTANCE_ID
    left = it.ask("m1", -2, instance_id="one")
    assert (left.error, left.epoch) == (E.NONE, -2)
    assert it.ask("m2", other.epoch).assignment is None, "its partitions wait for it"
    back = it.join("m3", instance_id="one")
    assert (back.error, back.assignment, it.group.epoch) == (E.NONE, told, epoch)
    assert it.ask("m1", 3, instance_id="one").error is E.FENCED_INSTANCE_ID
    assert it.ask("m1", -1, instance_id="one").error is E.FENCED_INSTANCE_ID
    assert it.ask("m3", back.epoch, instance_id="two").error is E.UNKNOWN_MEMBER_ID
    assert it.ask("m3", -1, instance_id="one").error is E.NONE


def test_a_static_member_that_does_not_return_is_removed() -> None:
    it = Coordinator(t=1)
    it.join("m1", instance_id="one")
    it.ask("m1", -2, instance_id="one")
    it.pass_time(1_000)
    it.store()
    assert it.group.member_count == 0


# --- subscriptions


def test_topics_come_and_go() -> None:
    it = Coordinator(t=1)
    epoch = it.join("m1", topics=("t", "later")).epoch
    it.change("unrelated", 5)
    assert not it.saves
    it.change("later", 2)
    it.store()
    answer = it.ask("m1", epoch)
    assert answer.assignment == of(0) | of(0, 1, topic="later")
    it.change("t", None)
    it.store()
    assert it.ask("m1", answer.epoch, owned=answer.assignment).assignment == of(0, 1, topic="later")


def test_a_pattern_follows_topics() -> None:
    it = Coordinator(t1=1)
    joined = it.join("m1", topics=(), regex="t.*", matched=frozenset(["t1"]))
    assert it.group.knows("t.*")
    assert joined.assignment == of(0, topic="t1")
    it.change("t2", 1, **{"t.*": frozenset(["t1", "t2"])})
    it.store()
    assert it.ask("m1", joined.epoch).assignment == of(0, topic="t1") | of(0, topic="t2")
    it.restart()
    assert it.group.knows("t.*"), "a coordinator that knows nothing of it would take its topics away"
    it.ask("m1", it.group.epoch, regex="")
    assert it.group.patterns == frozenset()


def test_most_members_choose_the_assignor() -> None:
    it = Coordinator(t=4, u=4)
    it.join("m1", topics=("t", "u"))
    assert it.group.describe().assignor == "uniform"
    it.join("m2", topics=("t", "u"), assignor="range")
    assert it.group.describe().assignor == "range"


# --- what is durable


def test_requests_during_a_save_share_the_next_one() -> None:
    it = Coordinator(t=4)
    tokens = [it.send(f"m{n}", 0, topics=("t",), rebalance_timeout_ms=1, owned=NO_PLACES) for n in range(4)]
    assert len(it.saves) == 1
    it.group.saved(it.saves.pop(), None, 0)
    it._deliver()
    assert set(it.answers) == {tokens[0]}
    assert len(it.saves) == 1
    it.store()
    assert set(it.answers) == set(tokens)


def test_what_could_not_be_saved_is_not_told_and_tried_again() -> None:
    it = Coordinator(t=2)
    token = it.send("m1", 0, topics=("t",), rebalance_timeout_ms=1, owned=NO_PLACES)
    it.store(Unavailable("disk"))
    assert it.answers[token].error is E.COORDINATOR_NOT_AVAILABLE
    assert not it.group.vacant
    it.pass_time(SAVE_RETRY_MS)
    it.store()
    assert it.stored is not None
    assert it.join("m1").assignment == of(0, 1)


def test_who_was_answered_with_an_error_is_told_later() -> None:
    it = Coordinator(t=1)
    epoch = it.join("m1").epoch
    it.change("t", 2)
    it.store()
    token = it.send("m1", epoch, owned=of(0))
    it.store(Unavailable("disk"))
    assert it.answers[token].error is E.COORDINATOR_NOT_AVAILABLE
    assert it.ask("m1", epoch, owned=of(0)).assignment == of(0, 1)


def test_a_coordinator_that_is_none_any_more_says_so() -> None:
    it = Coordinator(t=1)
    first = it.send("m1", 0, topics=("t",), rebalance_timeout_ms=1, owned=NO_PLACES)
    second = it.send("m2", 0, topics=("t",), rebalance_timeout_ms=1, owned=NO_PLACES)
    it.group.abandon()
    it._deliver()
    assert {it.answers[first].error, it.answers[second].error} == {E.NOT_COORDINATOR}
    it.store(Fenced("the slot is another broker's"))
    assert not it.saves


def test_a_save_of_what_the_group_was_before_answers_nobody() -> None:
    it = Coordinator(t=1)
    token = it.send("m1", 0, topics=("t",), rebalance_timeout_ms=1, owned=NO_PLACES)
    it.group.saved(Save(it.saves[0].saved, "of a classic group"), None, 0)
    it._deliver()
    assert token not in it.answers


def test_members_remain_when_their_coordinator_is_killed() -> None:
    it = Coordinator(t=2)
    first, second = it.join("m1"), it.join("m2")
    before = it.group.describe()
    it.restart()
    assert not it.saves, "nothing has changed"
    assert it.group.describe() == before
    assert it.ask("m1", first.epoch, owned=of(0, 1)).error is E.NONE
    assert it.ask("m2", second.epoch).error is E.NONE
    it.pass_time(1_000)
    assert it.group.member_count == 0


def test_a_deletion_that_fails() -> None:
    it = Coordinator()
    it.group.die()
    assert it.group.state is GroupState.DEAD
    it.group.revive()
    assert it.group.state is GroupState.EMPTY
    it.join("m1", topics=())
    with pytest.raises(AssertionError):
        it.group.die()


# --- any interleaving


@dataclass
class Client:
    member_id: str
    topics: tuple[str, ...]
    epoch: int = 0
    owned: Places = NO_PLACES
    target: Places = NO_PLACES  # what it was told last
    token: int | None = None  # its request under way
    is_full: bool = True  # the next request tells all
    said: Places | None = None
    sent: tuple[str, ...] | None = None  # the topics that it has sent

    def forget(self) -> None:
        """It has been fenced: it closes all, and joins."""
        self.epoch, self.owned, self.target = 0, NO_PLACES, NO_PLACES
        self.token, self.is_full, self.said = None, True, None


TOPIC_SETS = st.sampled_from([("t",), ("u",), ("t", "u"), ()])


class Interleavings(RuleBasedStateMachine):
    clients = Bundle("clients")

    @initialize()
    def start(self) -> None:
        self.it = Coordinator(t=3, u=2)
        self.alive: dict[str, Client] = {}
        self.epochs = (0, 0)
        self.number = count()

    @precondition(lambda self: len(self.alive) < 4)
    @rule(target=clients, topics=TOPIC_SETS)
    def come(self, topics: tuple[str, ...]) -> Client:
        client = Client(f"m{next(self.number)}", topics)
        self.alive[client.member_id] = client
        return client

    @rule(client=clients)
    def send(self, client: Client) -> None:
        if client.member_id not in self.alive or client.token is not None:
            return
        if client.epoch == 0:
            client.token = self.it.send(
                client.member_id, 0, topics=client.topics, rebalance_timeout_ms=REBALANCE_MS, owned=NO_PLACES
            )
        elif client.is_full:
            client.token = self.it.send(
                client.member_id,
                client.epoch,
                topics=client.topics,
                rebalance_timeout_ms=REBALANCE_MS,
                owned=client.owned,
            )
        else:
            owned = None if client.said == client.owned else client.owned
            client.token = self.it.send(client.member_id, client.epoch, owned=owned)
            client.said = client.owned
            return
        client.said, client.sent = client.owned, client.topics

    @rule(client=clients, lost=st.booleans())
    def receive(self, client: Client, lost: bool) -> None:
        if client.token is None or client.token not in self.it.answers:
            return
        answer = self.it.answers[client.token]
        client.token = None
        if lost or answer.error in (E.COORDINATOR_NOT_AVAILABLE, E.NOT_COORDINATOR):
            client.is_full = True
        elif answer.error is not E.NONE:
            assert answer.error in (E.FENCED_MEMBER_EPOCH, E.UNKNOWN_MEMBER_ID), answer
            client.forget()
        else:
            assert answer.epoch >= client.epoch, "a member's epoch never goes back"
            client.epoch, client.is_full = answer.epoch, client.topics != client.sent
            if answer.assignment is not None:
                client.target = answer.assignment

    @rule(client=clients)
    def give_up(self, client: Client) -> None:
        client.owned &= client.target

    @rule(client=clients)
    def take(self, client: Client) -> None:
        if client.owned <= client.target:
            client.owned = client.target

    @rule(client=clients, topics=TOPIC_SETS)
    def subscribe(self, client: Client, topics: tuple[str, ...]) -> None:
        client.topics, client.is_full = topics, True

    @rule(client=clients)
    def leave(self, client: Client) -> None:
        if self.alive.pop(client.member_id, None) is not None:
            client.owned = NO_PLACES
            self.it.send(client.member_id, -1)

    @rule(name=st.sampled_from("tu"), partitions=st.integers(1, 5))
    def change(self, name: str, partitions: int) -> None:
        known = self.it.topics.get(name)
        if known is None or partitions > known.partitions:
            self.it.change(name, partitions)

    @rule(fails=st.booleans())
    def save(self, fails: bool) -> None:
        self.it.store(Unavailable("disk") if fails else None)

    @rule(landed=st.booleans())
    def crash(self, landed: bool) -> None:
        """With or without what is under way; the requests that wait are lost."""
        if landed and self.it.saves:
            self.it.stored = self.it.saves[0].saved
        waiting = {client.token for client in self.alive.values()} - set(self.it.answers)
        self.it.restart()
        self.epochs = (0, 0) if self.it.stored is None else (self.it.stored.epoch, 0)
        for client in self.alive.values():
            if client.token in waiting:
                client.token, client.is_full = None, True

    @rule()
    def wait(self) -> None:
        """A time in which all are heard of; what could not be saved is tried again."""
        for client in self.alive.values():
            if (member := self.it.group._roster.get(client.member_id)) is not None:
                self.it.group._touch(member, self.it.now_ms + SAVE_RETRY_MS)
        self.it.pass_time(SAVE_RETRY_MS)

    @invariant()
    def nothing_has_two_owners(self) -> None:
        known = [c for c in self.alive.values() if self.it.group._roster.get(c.member_id) is not None]
        owned = [place for client in known for place in client.owned]
        assert len(owned) == len(set(owned)), {client.member_id: client.owned for client in known}

    @invariant()
    def epochs_never_go_back(self) -> None:
        epochs = (self.it.group.epoch, self.it.group.assignment_epoch)
        assert epochs >= self.epochs
        assert epochs[0] >= epochs[1]
        self.epochs = epochs

    def teardown(self) -> None:
        """When nothing else happens and all send heartbeats, everything gets an owner."""
        if not hasattr(self, "it"):
            return
        for _ in range(20):
            self.save(False)
            self.wait()
            for client in self.alive.values():
                self.receive(client, False)
                self.give_up(client)
                self.take(client)
                self.send(client)
            self.nothing_has_two_owners()
        self.save(False)
        wanted = {name for client in self.alive.values() for name in client.topics if name in self.it.topics}
        places = {(self.it.topics[n].id, i) for n in wanted for i in range(self.it.topics[n].partitions)}
        owned = [place for client in self.alive.values() for place in client.owned]
        assert set(owned) == places, (self.alive, self.it.group.describe())
        assert len(owned) == len(places)
        assert self.it.group.state is (GroupState.STABLE if self.alive else GroupState.EMPTY)


Interleavings.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestInterleavings = Interleavings.TestCase


def test_it_need_not_be_woken_when_nobody_is_there() -> None:
    it = Coordinator()
    it.group.tick(5)
    assert it.group.wake_ms == NEVER_MS
