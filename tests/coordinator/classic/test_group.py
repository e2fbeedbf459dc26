from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlake.coordinator.classic.api import (
    GroupError,
    JoinAnswer,
    JoinRequest,
    LeavingMember,
    State,
    SyncAnswer,
    SyncRequest,
)
from streamlake.coordinator.classic.group import Group
from streamlake.coordinator.machine import Answer, Save
from streamlake.coordinator.settings import GroupSettings
from streamlake.core.errors import StreamLakeError, Unavailable

E = GroupError
PROTOCOLS = (("range", b"r"), ("sticky", b"s"))


class Life:
    """A group with its clients: tokens are numbers, time stands until told, saves wait until told."""

    def __init__(self, **limits: int) -> None:
        self.settings = GroupSettings(**{"initial_rebalance_delay_ms": 0, **limits})
        self.ids = iter(UUID(int=n) for n in range(10**6))
        self.group = Group("g", self.settings, lambda: next(self.ids))
        self.now = 1_000
        self.tokens = 0
        self.answers: dict[int, JoinAnswer | SyncAnswer] = {}
        self.saves: list[Save] = []

    def restart(self) -> None:
        saved = self.group.snapshot()
        self.group = Group.restored("g", saved, self.now, self.settings, lambda: next(self.ids))
        self.saves = []

    def join(self, member_id: str = "", **changes: object) -> int:
        request = {
            "group_id": "g",
            "member_id": member_id,
            "group_instance_id": None,
            "client_id": "c",
            "client_host": "/h",
            "session_timeout_ms": 10_000,
            "rebalance_timeout_ms": 30_000,
            "protocol_type": "consumer",
            "protocols": PROTOCOLS,
            "require_known_member_id": False,
            "supports_skip_assignment": True,
            **changes,
        }
        self.tokens += 1
        self.group.join(JoinRequest(**request), self.tokens, self.now)
        self.drain()
        return self.tokens

    def sync(self, member_id: str, generation: int | None = None, assignments=None, **changes: object) -> int:
        request = {
            "group_id": "g",
            "member_id": member_id,
            "group_instance_id": None,
            "generation": self.group.generation if generation is None else generation,
            "protocol_type": "consumer",
            "protocol": self.group.protocol,
            "assignments": assignments or {},
            **changes,
        }
        self.tokens += 1
        self.group.sync(SyncRequest(**request), self.tokens, self.now)
        self.drain()
        return self.tokens

    def beat(self, member_id: str, generation: int | None = None, instance: str | None = None) -> GroupError:
        return self.group.heartbeat(
            member_id, instance, self.group.generation if generation is None else generation, self.now
        )

    def leave(self, member_id: str, instance: str | None = None) -> GroupError:
        error = self.group.leave(LeavingMember(member_id, instance), self.now)
        self.drain()
        return error

    def wait(self, ms: int) -> None:
        """Time passes; the machine is called when it asked to be, not otherwise."""
        until = self.now + ms
        while self.group.wake_ms <= until:
            self.now = max(self.now, self.group.wake_ms)
            self.group.tick(self.now)
            self.drain()
        self.now = until

    def save(self, error: StreamLakeError | None = None) -> None:
        saves, self.saves = self.saves, []
        for save in saves:
            self.group.saved(save, error, self.now)
            self.drain()

    def drain(self) -> None:
        for effect in self.group.take_effects():
            if isinstance(effect, Save):
                self.saves.append(effect)
            else:
                assert isinstance(effect, Answer)
                assert effect.token not in self.answers, "answered twice"
                self.answers[effect.token] = effect.answer

    def stable(self, count: int, **changes: object) -> list[str]:
        """Bring `count` members into a stable generation; their ids, the leader's first."""
        members = []
        first = self.join(**{"client_id": "m0", **changes})
        members.append(self.answers[first].member_id)
        for n in range(1, count):
            newcomer = self.join(**{"client_id": f"m{n}", **changes})
            again = [self.join(m, **changes) for m in members]
            members = [self.answers[t].member_id for t in [*again, newcomer]]
        for m in members:
            self.sync(m, assignments={m: f"to {m}".encode() for m in members})
        self.save()
        assert self.group.state is State.STABLE
        return members


# --- joining


def test_a_consumer_alone():
    life = Life()
    token = life.join()
    joined = life.answers[token]
    assert joined == JoinAnswer(
        E.NONE, joined.member_id, 1, "consumer", "range", joined.member_id, False, joined.members
    )
    assert [(m.member_id, m.metadata) for m in joined.members] == [(joined.member_id, b"r")]
    assert joined.member_id.startswith("c-")
    assert life.beat(joined.member_id) is E.NONE
    waiting = life.sync(joined.member_id, assignments={joined.member_id: b"all", "nobody": b"x"})
    assert waiting not in life.answers, "told before it was durable"
    life.save()
    assert life.answers[waiting] == SyncAnswer(E.NONE, "consumer", "range", b"all")
    assert life.group.describe().members[0].assignment == b"all"


def test_a_new_member_must_first_know_its_id():
    life = Life()
    refused = life.answers[life.join(require_known_member_id=True)]
    assert refused.error is E.MEMBER_ID_REQUIRED
    assert refused.member_id
    assert life.group.state is State.EMPTY
    assert not life.group.vacant
    assert life.answers[life.join(refused.member_id, require_known_member_id=True)].generation == 1


def test_a_given_id_lapses_with_the_session():
    life = Life()
    member_id = life.answers[life.join(require_known_member_id=True)].member_id
    life.wait(9_999)
    assert not life.group.vacant
    life.wait(1)
    assert life.group.vacant
    assert life.answers[life.join(member_id)].error is E.UNKNOWN_MEMBER_ID


def test_a_pending_member_can_leave():
    life = Life()
    member_id = life.answers[life.join(require_known_member_id=True)].member_id
    assert life.leave(member_id) is E.NONE
    assert life.group.vacant


def test_a_rebalance_waits_for_those_who_know_their_id():
    life = Life()
    (old,) = life.stable(1)
    pending = life.answers[life.join(require_known_member_id=True)].member_id
    rejoined = life.join(old)
    assert rejoined not in life.answers
    joined = life.join(pending)
    assert life.answers[rejoined].generation == life.answers[joined].generation == 2
    assert len(life.answers[rejoined].members) == 2


def test_two_members_share_the_initial_delay_and_one_leads():
    life = Life(initial_rebalance_delay_ms=500)
    tokens = [life.join(client_id="a"), life.join(client_id="b")]
    life.wait(499)
    assert not life.answers
    life.wait(501)  # the second member started the delay again
    a, b = (life.answers[t] for t in tokens)
    assert a.generation == b.generation == 1
    assert a.leader == b.leader == a.member_id
    assert [m.member_id for m in a.members] == [a.member_id, b.member_id]
    assert b.members == ()


def test_newcomers_stretch_the_initial_delay_to_the_rebalance_timeout_at_most():
    life = Life(initial_rebalance_delay_ms=500)
    tokens = []
    for _ in range(10):
        tokens.append(life.join(rebalance_timeout_ms=1_200))
        life.wait(130)
    life.wait(0)
    assert all(life.answers[t].generation == 1 for t in tokens[:9])


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"session_timeout_ms": 5_999}, E.INVALID_SESSION_TIMEOUT),
        ({"session_timeout_ms": 1_800_001}, E.INVALID_SESSION_TIMEOUT),
        ({"protocols": ()}, E.INCONSISTENT_GROUP_PROTOCOL),
        ({"protocol_type": ""}, E.INCONSISTENT_GROUP_PROTOCOL),
        ({"member_id": "unknown"}, E.UNKNOWN_MEMBER_ID),
        ({"member_id": "unknown", "group_instance_id": "i"}, E.UNKNOWN_MEMBER_ID),
    ],
)
def test_refused_joins(changes, error):
    life = Life()
    assert life.answers[life.join(**changes)].error is error
    assert life.group.vacant


@pytest.mark.parametrize("changes", [{"protocol_type": "connect"}, {"protocols": (("other", b""),)}])
def test_members_need_a_common_protocol(changes):
    life = Life()
    life.stable(1)
    assert life.answers[life.join(**changes)].error is E.INCONSISTENT_GROUP_PROTOCOL
    assert life.group.state is State.STABLE


def test_the_vote_goes_to_what_most_like_best_of_what_all_support():
    life = Life(initial_rebalance_delay_ms=10)
    tokens = [
        life.join(protocols=(("a", b""), ("b", b""), ("c", b""))),
        life.join(protocols=(("c", b""), ("b", b""))),
        life.join(protocols=(("c", b""), ("b", b""))),
    ]
    life.wait(100)
    assert {life.answers[t].protocol for t in tokens} == {"c"}


def test_a_full_group_takes_nobody_else():
    life = Life(group_size_max=2)
    members = life.stable(2)
    assert life.answers[life.join()].error is E.GROUP_MAX_SIZE_REACHED
    life.leave(members[1])
    newcomer = life.join()
    again = life.join(members[0])
    assert life.answers[newcomer].error is life.answers[again].error is E.NONE


def test_ids_given_out_but_unused_are_bounded():
    life = Life(group_size_max=3)
    errors = [life.answers[life.join(require_known_member_id=True)].error for _ in range(4)]
    assert errors == [E.MEMBER_ID_REQUIRED] * 3 + [E.GROUP_MAX_SIZE_REACHED]


def test_a_long_client_id_makes_no_long_member_id():
    assert len(Life().group._new_member_id("x" * 40_000)) < 250


# --- rebalances


def test_a_newcomer_starts_a_rebalance_and_others_hear_of_it():
    life = Life()
    old = life.stable(2)
    newcomer = life.join()
    assert [life.beat(m) for m in old] == [E.REBALANCE_IN_PROGRESS] * 2
    assert life.answers[life.sync(old[0])].error is E.REBALANCE_IN_PROGRESS
    tokens = [life.join(m) for m in old]
    generations = {life.answers[t].generation for t in [*tokens, newcomer]}
    assert generations == {life.group.generation}
    assert life.beat(old[0], generation=life.group.generation - 1) is E.ILLEGAL_GENERATION


def test_who_does_not_rejoin_in_time_is_out():
    life = Life()
    old = life.stable(2, session_timeout_ms=100_000)
    newcomer = life.join(session_timeout_ms=100_000)
    leaving = life.join(old[0], session_timeout_ms=100_000)
    life.wait(29_999)
    assert newcomer not in life.answers
    life.wait(1)
    assert life.answers[newcomer].generation == life.answers[leaving].generation
    assert life.group.member_count == 2
    assert life.beat(old[1]) is E.UNKNOWN_MEMBER_ID


def test_a_silent_member_expires_and_the_others_rebalance():
    life = Life()
    leader, follower = life.stable(2)
    life.wait(9_000)
    assert life.beat(leader) is E.NONE
    life.wait(1_000)
    assert life.beat(follower) is E.UNKNOWN_MEMBER_ID
    assert life.beat(leader) is E.REBALANCE_IN_PROGRESS
    assert life.group.expired_members == 1


def test_heartbeats_keep_a_member():
    life = Life()
    (member,) = life.stable(1)
    for _ in range(10):
        life.wait(9_999)
        assert life.beat(member) is E.NONE


def test_a_commit_is_a_heartbeat():
    life = Life()
    (member,) = life.stable(1)
    life.wait(9_999)
    assert life.group.check_commit(member, None, 1, life.now) is E.NONE
    life.wait(9_999)
    assert life.beat(member) is E.NONE


def test_a_waiting_member_does_not_expire_but_a_new_one_does_after_five_minutes():
    life = Life()
    (old,) = life.stable(1, session_timeout_ms=1_000_000)
    assert life.join(old, session_timeout_ms=10_000, rebalance_timeout_ms=1_000_000) in life.answers
    again = life.join(old, rebalance_timeout_ms=1_000_000)
    assert again in life.answers, "alone it waits for nobody"
    life.sync(old)
    life.save()
    gone = life.join(rebalance_timeout_ms=1_000_000)
    life.wait(9_000)
    assert life.beat(old) is E.REBALANCE_IN_PROGRESS
    for _ in range(40):
        life.wait(9_000)
        life.beat(old)
    assert life.answers[gone].error is E.UNKNOWN_MEMBER_ID


def test_the_last_one_out_leaves_an_empty_generation():
    life = Life()
    (member,) = life.stable(1)
    assert life.leave(member) is E.NONE
    assert (life.group.state, life.group.generation, life.group.protocol) == (State.EMPTY, 2, None)
    (save,) = life.saves
    assert (save.saved.epoch, save.saved.leader, save.then) == (2, None, None)


def test_the_oldest_member_follows_a_leader_that_leaves():
    life = Life()
    leader, *others = life.stable(3)
    life.leave(leader)
    tokens = [life.join(m) for m in reversed(others)]
    assert {life.answers[t].leader for t in tokens} == {others[0]}


def test_the_leader_that_joins_again_gets_a_rebalance_a_follower_gets_what_it_has():
    life = Life()
    leader, follower = life.stable(2)
    answer = life.answers[life.join(follower)]
    assert (answer.generation, answer.leader, answer.members) == (life.group.generation, leader, ())
    assert life.group.state is State.STABLE
    assert life.join(leader) not in life.answers
    assert life.group.state is State.PREPARING


def test_a_follower_with_another_subscription_gets_a_rebalance():
    life = Life()
    _, follower = life.stable(2)
    life.join(follower, protocols=(("range", b"new"), ("sticky", b"s")))
    assert life.group.state is State.PREPARING


def test_a_lost_join_answer_is_repeated():
    life = Life()
    answer = life.answers[life.join()]
    assert life.answers[life.join(answer.member_id)] == answer
    assert life.group.state is State.COMPLETING


def test_a_second_join_of_the_same_member_answers_the_first():
    life = Life()
    old = life.stable(2)
    first = life.join(old[0])
    second = life.join(old[0])
    assert life.answers[first].error is E.REBALANCE_IN_PROGRESS
    assert second not in life.answers


# --- sync


def test_followers_wait_for_the_leader_and_everybody_for_the_store():
    life = Life(initial_rebalance_delay_ms=10)
    tokens = [life.join(), life.join()]
    life.wait(100)
    leader, follower = (life.answers[t].member_id for t in tokens)
    early = life.sync(follower, assignments={follower: b"stolen"})
    late = life.sync(leader, assignments={leader: b"L", follower: b"F"})
    assert early not in life.answers
    assert late not in life.answers
    assert life.group.state is State.COMPLETING
    life.save()
    assert (life.answers[early].assignment, life.answers[late].assignment) == (b"F", b"L")
    assert life.answers[life.sync(follower)].assignment == b"F"


def test_an_assignment_that_cannot_be_saved_was_never_given():
    life = Life()
    member = life.answers[life.join()].member_id
    token = life.sync(member, assignments={member: b"x"})
    life.save(Unavailable("no"))
    assert life.answers[token] == SyncAnswer(E.COORDINATOR_NOT_AVAILABLE)
    assert life.group.state is State.PREPARING
    assert life.beat(member) is E.REBALANCE_IN_PROGRESS
    assert life.answers[life.join(member)].generation == 2


def test_a_save_that_comes_after_the_next_rebalance_changes_nothing():
    life = Life()
    member = life.answers[life.join()].member_id
    token = life.sync(member, assignments={member: b"x"})
    newcomer = life.join()
    assert life.answers[token].error is E.REBALANCE_IN_PROGRESS
    life.save()
    assert life.group.state is State.PREPARING
    life.join(member)
    assert life.answers[newcomer].generation == 2
    life.save()
    assert life.group.state is State.COMPLETING


def test_the_save_of_an_older_generation_does_not_vouch_for_a_newer_one():
    life = Life()
    member = life.answers[life.join()].member_id
    life.sync(member)
    life.join(member, protocols=PROTOCOLS[:1])
    token = life.sync(member)
    older, newer = life.saves
    life.group.saved(older, None, life.now)
    life.drain()
    assert token not in life.answers
    life.group.saved(newer, None, life.now)
    life.drain()
    assert life.answers[token].error is E.NONE


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"generation": 7}, E.ILLEGAL_GENERATION),
        ({"protocol_type": "connect"}, E.INCONSISTENT_GROUP_PROTOCOL),
        ({"protocol": "sticky"}, E.INCONSISTENT_GROUP_PROTOCOL),
        ({"protocol": None, "protocol_type": None}, E.NONE),
        ({"member_id": "nobody"}, E.UNKNOWN_MEMBER_ID),
        ({"group_instance_id": "nobody"}, E.UNKNOWN_MEMBER_ID),
    ],
)
def test_refused_syncs(changes, error):
    life = Life()
    (member,) = life.stable(1)
    assert life.answers[life.sync(**{"member_id": member, **changes})].error is error


def test_who_never_asks_for_its_assignment_is_removed():
    life = Life()
    (old,) = life.stable(1)
    newcomer = life.join(session_timeout_ms=100_000)
    life.join(old, session_timeout_ms=100_000)
    life.sync(old)
    life.save()
    assert life.group.state is State.STABLE
    silent = life.answers[newcomer].member_id
    life.wait(29_999)
    assert life.beat(silent) is E.NONE
    life.wait(1)
    assert life.beat(silent) is E.UNKNOWN_MEMBER_ID
    assert life.beat(old) is E.REBALANCE_IN_PROGRESS


def test_a_dead_leader_does_not_hold_its_followers():
    life = Life(initial_rebalance_delay_ms=10)
    tokens = [life.join(), life.join()]
    life.wait(100)
    _, follower = (life.answers[t].member_id for t in tokens)
    waiting = life.sync(follower)
    life.wait(10_000)
    assert life.answers[waiting].error is E.REBALANCE_IN_PROGRESS
    answer = life.answers[life.join(follower)]
    assert (answer.leader, answer.generation) == (follower, 2)


# --- static members (KIP-345, KIP-814)


def static(life: Life, instance: str, **changes: object) -> int:
    return life.join(group_instance_id=instance, **changes)


def stable_static(life: Life, *instances: str) -> list[str]:
    life.settings = GroupSettings(initial_rebalance_delay_ms=10)
    life.group = Group("g", life.settings, lambda: next(life.ids))
    tokens = [static(life, i) for i in instances]
    life.wait(100)
    members = [life.answers[t].member_id for t in tokens]
    for m, i in zip(members, instances, strict=True):
        life.sync(m, group_instance_id=i, assignments={m: m.encode() for m in members})
    life.save()
    return members


def test_a_static_member_that_restarts_causes_no_rebalance_and_keeps_its_assignment():
    life = Life()
    _, b = stable_static(life, "a", "b")
    token = static(life, "b")
    assert token not in life.answers, "told before the change of ids was durable"
    life.save()
    answer = life.answers[token]
    assert (answer.error, answer.generation, answer.members) == (E.NONE, 1, ())
    assert answer.member_id != b
    assert life.group.state is State.STABLE
    synced = life.answers[life.sync(answer.member_id, group_instance_id="b")]
    assert synced.assignment == b.encode()
    assert life.beat(b, instance="b") is E.FENCED_INSTANCE_ID
    assert life.beat(answer.member_id, instance="b") is E.NONE
    assert life.group.check_commit(b, "b", 1, life.now) is E.FENCED_INSTANCE_ID


def test_a_restart_that_is_not_durable_is_not_announced():
    life = Life()
    stable_static(life, "a", "b")
    token = static(life, "b")
    life.save(Unavailable("no"))
    assert life.answers[token].error is E.COORDINATOR_NOT_AVAILABLE
    again = static(life, "b")
    life.save()
    assert life.answers[again].error is E.NONE


def test_a_static_leader_that_restarts_skips_the_assignment_if_it_can():
    life = Life()
    a, _ = stable_static(life, "a", "b")
    token = static(life, "a")
    life.save()
    answer = life.answers[token]
    assert answer.skip_assignment
    assert answer.leader == answer.member_id
    assert len(answer.members) == 2

    old = static(life, "a", supports_skip_assignment=False)
    life.save()
    answer, before = life.answers[old], answer.member_id
    assert (answer.skip_assignment, answer.leader, answer.members) == (False, before, ())
    assert a != before


def test_a_static_member_whose_choice_changes_the_protocol_causes_a_rebalance():
    life = Life()
    stable_static(life, "a")
    static(life, "a", protocols=(("sticky", b"s"), ("range", b"r")))
    assert life.group.generation == 2


def test_a_static_member_is_not_removed_by_a_rebalance_only_by_its_session():
    life = Life()
    a, b = stable_static(life, "a", "b")
    newcomer = life.join(session_timeout_ms=100_000, rebalance_timeout_ms=5_000)
    life.join(a, group_instance_id="a", session_timeout_ms=100_000, rebalance_timeout_ms=5_000)
    life.wait(9_899)
    assert newcomer not in life.answers
    life.wait(1_000)
    assert newcomer in life.answers, "b's session ended before the rebalance timeout of 30 s"
    assert life.beat(b, instance="b") is E.UNKNOWN_MEMBER_ID


def test_a_rebalance_without_anybody_there_waits_on():
    life = Life()
    members = stable_static(life, "a", "b")
    life.wait(5_000)
    for m, i in zip(members, "ab", strict=True):
        life.join(m, group_instance_id=i, session_timeout_ms=200_000, rebalance_timeout_ms=1_000)
    for m, i in zip(members, "ab", strict=True):
        life.sync(m, group_instance_id=i)
    life.save()
    (pending,) = [life.join(require_known_member_id=True, session_timeout_ms=200_000)]
    dynamic = life.join(life.answers[pending].member_id, rebalance_timeout_ms=1_000)
    life.leave(life.answers[pending].member_id)
    assert life.answers[dynamic].error is E.UNKNOWN_MEMBER_ID
    life.wait(50_000)
    assert life.group.state is State.PREPARING
    assert life.group.member_count == 2


def test_during_a_rebalance_the_former_self_is_fenced_at_once():
    life = Life()
    a, b = stable_static(life, "a", "b")
    waiting = life.join(a, group_instance_id="a")
    replaced = static(life, "a")
    assert life.answers[waiting].error is E.FENCED_INSTANCE_ID
    life.join(b, group_instance_id="b")
    assert life.answers[replaced].generation == 2


def test_a_waiting_sync_of_a_former_self_is_fenced():
    life = Life()
    (a,) = stable_static(life, "a")
    life.join(a, group_instance_id="a")
    waiting = life.sync(a, group_instance_id="a")
    again = static(life, "a")
    assert life.answers[waiting].error is E.FENCED_INSTANCE_ID
    assert life.answers[again].generation == 3


def test_administrators_remove_a_static_member_by_its_instance():
    life = Life()
    a, _ = stable_static(life, "a", "b")
    assert life.leave("someone else", "a") is E.FENCED_INSTANCE_ID
    assert life.leave("", "a") is E.NONE
    assert life.leave("", "a") is E.UNKNOWN_MEMBER_ID
    assert life.beat(a, instance="a") is E.UNKNOWN_MEMBER_ID


# --- commits, restart, the end


def test_who_may_commit():
    life = Life()
    check = lambda *who: life.group.check_commit(*who, life.now)  # noqa: E731
    assert check("", None, -1) is E.NONE, "a consumer without a group"
    assert check("", None, 1) is E.UNKNOWN_MEMBER_ID
    joined = life.answers[life.join()]
    assert check(joined.member_id, None, 1) is E.REBALANCE_IN_PROGRESS, "it has no assignment yet"
    life.sync(joined.member_id)
    life.save()
    assert check(joined.member_id, None, 1) is E.NONE
    assert check(joined.member_id, None, 0) is E.ILLEGAL_GENERATION
    assert check("", None, -1) is E.UNKNOWN_MEMBER_ID
    life.join()
    assert check(joined.member_id, None, 1) is E.NONE, "its partitions are still its own"


def test_a_restart_goes_on_in_the_same_generation():
    life = Life()
    members = life.stable(3)
    generation, before = life.group.generation, life.group.describe()
    life.wait(9_000)
    life.restart()
    assert life.group.describe() == before
    life.wait(9_000)
    assert [life.beat(m, generation) for m in members] == [E.NONE] * 3
    assert life.answers[life.sync(members[1])].assignment == f"to {members[1]}".encode()
    life.wait(10_000)
    assert life.group.member_count == 0
    assert life.group.generation > generation


def test_the_leader_survives_a_restart():
    life = Life()
    leader, *others = life.stable(3)
    life.restart()
    assert life.answers[life.join(others[0])].leader == leader


def test_an_abandoned_group_answers_everybody():
    life = Life()
    old = life.stable(2)
    tokens = [life.join(old[0]), life.join()]
    life.group.abandon()
    life.drain()
    assert [life.answers[t].error for t in tokens] == [E.NOT_COORDINATOR] * 2


def test_description():
    life = Life()
    life.join()
    assert life.group.describe().state == "CompletingRebalance"
    assert life.group.describe().protocol == ""
    assert life.group.describe().members[0].metadata == b""


# --- whatever happens

EVENTS = st.tuples(
    st.sampled_from(["join", "rejoin", "static", "sync", "sync", "beat", "leave", "wait", "save", "fail", "restart"]),
    st.integers(0, 5),
    st.integers(0, 3),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(EVENTS, max_size=60), st.sampled_from([0, 500]))
def test_whatever_happens(events, delay):
    """One answer for each request, at most one leader and one assignment per generation, generations only grow."""
    life = Life(initial_rebalance_delay_ms=delay, group_size_max=5)
    joins: dict[int, str] = {}
    syncs: dict[int, int] = {}  # token → generation
    known: list[tuple[str, str | None]] = [("nobody", None)]
    given_by: dict[int, set[bytes]] = {}  # generation → what its leader handed in
    generation = 0
    lost: set[int] = set()
    for kind, n, m in events:
        member, instance = known[n % len(known)]
        if kind == "join":
            joins[life.join(require_known_member_id=bool(m % 2))] = ""
        elif kind == "rejoin":
            joins[life.join(member, group_instance_id=instance, protocols=PROTOCOLS if m else PROTOCOLS[:1])] = member
        elif kind == "static":
            joins[life.join(group_instance_id=f"i{m}", supports_skip_assignment=bool(n % 2))] = ""
        elif kind == "sync":
            now = life.group.generation
            mine = {x: f"{now}:{life.tokens}:{x}".encode() for x, _ in known}
            leads = life.group.snapshot().leader == member and life.group.state is State.COMPLETING
            token = life.sync(member, assignments=mine, group_instance_id=instance)
            syncs[token] = now
            if leads and token not in life.answers:
                given_by.setdefault(now, set(mine.values()))
        elif kind == "beat":
            life.beat(member, instance=instance)
        elif kind == "leave":
            life.leave(member, instance)
        elif kind == "wait":
            life.wait([10, 600, 9_000, 31_000][m])
        elif kind == "save":
            life.save()
        elif kind == "fail":
            life.save(Unavailable("no"))
        elif life.group.state in (State.STABLE, State.EMPTY) and not life.saves:
            lost |= {t for t in (*joins, *syncs) if t not in life.answers}
            life.restart()
        assert life.group.generation >= generation
        generation = life.group.generation
        for token in joins:
            answer = life.answers.get(token)
            if answer is not None and answer.member_id and (answer.member_id, None) not in known:
                found = [x for x in life.group.describe().members if x.member_id == answer.member_id]
                who = (answer.member_id, found[0].group_instance_id if found else None)
                if who not in known:
                    known.append(who)
    for _ in range(6):
        life.save()
        life.wait(2_000_000)
    life.save()
    assert lost.isdisjoint(life.answers)
    assert set(life.answers) == (set(joins) | set(syncs)) - lost, "every request got its one answer"
    assert life.group.state is State.EMPTY
    check_answers([life.answers[t] for t in joins if t in life.answers])
    for token, now in syncs.items():
        answer = life.answers.get(token)
        if answer is not None and answer.error is E.NONE:
            assert answer.assignment in given_by[now], "not what the leader of this generation handed in"


def check_answers(answers: list[JoinAnswer]) -> None:
    assigning: dict[int, set[str]] = {}
    protocols: dict[int, set[str | None]] = {}
    for answer in answers:
        if answer.error is not E.NONE:
            continue
        protocols.setdefault(answer.generation, set()).add(answer.protocol)
        if answer.leader == answer.member_id and not answer.skip_assignment:
            assigning.setdefault(answer.generation, set()).add(answer.member_id)
    assert all(len(leaders) == 1 for leaders in assigning.values()), assigning
    assert all(len(chosen) == 1 for chosen in protocols.values()), protocols
