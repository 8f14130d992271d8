"""Room is held for the more important for a while, and no longer because their host cannot make up its mind."""

from immutables import Map
from msgspec.structs import replace

from outlive.cluster import records as rec
from outlive.cluster.holding import held_before
from outlive.cluster.leader_state import LeaderState, Turn

from .small_world import SmallWorld, service

WEB, DB = service("web", priority=10), service("db", priority=900)


def of_a_leader() -> tuple[LeaderState, str]:
    """What a leader knows that has placed all, and where the more important one is."""
    world = SmallWorld("a", "b", "c")
    world.run(2)
    world.apply(DB)
    world.apply(WEB)
    world.run(3)
    return world.hosts[str(world.leads())].leader, str(world.placement("db").host)


def held(state: LeaderState, host: str, verdict: rec.Verdict, at: float) -> tuple[LeaderState, bool]:
    """Whether room is held for the more important one while its host is judged so."""
    turn = Turn(replace(state, verdicts=state.verdicts.set(host, verdict), at=at, in_flight=Map()))
    found = [each.workload.name for each in held_before(turn, WEB)]
    return turn.state, found == ["db"]


def test_room_is_held_anew_for_each_step_on_the_way_to_a_new_place() -> None:
    state, host = of_a_leader()
    at, most_s = state.at, state.timing.hold_room_s
    for verdict in (rec.Verdict.PARTITIONED, rec.Verdict.ISOLATED, rec.Verdict.DEAD):
        state, holds = held(state, host, verdict, at)
        assert holds
        state, holds = held(state, host, verdict, at + most_s - 0.1)
        assert holds
        at += most_s
        assert not held(state, host, verdict, at)[1]


def test_a_host_that_goes_to_and_fro_between_two_steps_has_room_held_no_longer() -> None:
    state, host = of_a_leader()
    began_at, most_s = state.at, state.timing.hold_room_s
    last_at = began_at
    for number in range(20):
        at = began_at + number * most_s / 4
        verdict = (rec.Verdict.PARTITIONED, rec.Verdict.ISOLATED)[number % 2]
        state, holds = held(state, host, verdict, at)
        last_at = at if holds else last_at
    assert 0 < last_at - began_at < 2 * most_s
