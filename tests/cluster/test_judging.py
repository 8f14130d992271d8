"""What a leader knows of hosts when messages are lost and its own time is short."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle

import pytest
from msgspec.structs import replace as replaced

from outlive.cluster import judging, leader, node
from outlive.cluster import records as rec
from outlive.cluster.commands import Act, Command, LearnTable, Probe, RecordEvent, Transact
from outlive.cluster.events import Event, HeartbeatReceived, HeartbeatsRepeated, Tick
from outlive.cluster.leader_state import LeaderState, Turn
from outlive.cluster.node_state import Turn as NodeTurn
from outlive.cluster.repeats import Repeats
from outlive.cluster.timing import Timing

from .small_world import SmallWorld
from .small_world import host as big_host


@pytest.fixture
def world() -> SmallWorld:
    """Three hosts, one of which leads."""
    three = SmallWorld("a", "b", "c")
    three.run(2)
    return three


def led(world: SmallWorld) -> LeaderState:
    return world.hosts[str(world.leads())].leader


def test_a_table_whose_answer_was_lost_is_asked_for_again_while_the_host_only_repeats_itself(world: SmallWorld) -> None:
    state, host = led(world), world.other_than(world.leads())
    said = world.hosts[host].node.beat
    assert said is not None
    news = HeartbeatReceived(world.now, replace(said, table=b"anothers", sequence=10**6))
    state, asked = leader.step(state, news)
    assert LearnTable(host, b"anothers") in asked
    again: list[Command] = []
    for tick in range(1, 11):
        at = world.now + tick * 0.1
        state, _ = leader.step(state, HeartbeatsRepeated(at, Repeats({host: 0}, (10**6 + tick,), (at,))))
        state, commands = leader.step(state, Tick(at))
        again += [each for each in commands if isinstance(each, LearnTable)]
    assert again == [LearnTable(host, b"anothers")] * 2


def late(state: LeaderState, times: int) -> tuple[LeaderState, list[Command]]:
    done: list[Command] = []
    for _ in range(times):
        state, commands = leader.step(state, Tick(state.at + 0.7))
        done += commands
    return state, done


def test_a_leader_that_is_late_again_and_again_forgets_no_silence(world: SmallWorld) -> None:
    host = world.other_than(world.leads())
    world.off.add(host)
    world.run(1.5)
    assert led(world).verdicts[host] is rec.Verdict.SUSPECT
    state, _ = late(led(world), 4)
    assert state.verdicts[host] is rec.Verdict.SUSPECT


def test_a_leader_that_is_late_again_and_again_leaves_the_office_and_says_why(world: SmallWorld) -> None:
    _, done = late(led(world), leader.LATE_TICKS)
    assert Act.RESIGN in [each.purpose.act for each in done if isinstance(each, Transact)]
    told = [each.event for each in done if isinstance(each, RecordEvent)]
    assert [each.kind for each in told if each.kind != "observer.lagged"] == ["leader.resigned"]
    assert "cannot tell who is silent" in next(each.text for each in told if each.kind == "leader.resigned")
    assert [each.kind for each in told].count("observer.lagged") == 1


def test_a_leader_that_is_late_now_and_then_stays(world: SmallWorld) -> None:
    state, done = late(led(world), leader.LATE_TICKS - 1)
    for _ in range(int(world.timing.dead_s / 0.1) + 1):
        state, _ = leader.step(state, Tick(state.at + 0.1))
    state, more = late(state, 1)
    assert Act.RESIGN not in [each.purpose.act for each in (*done, *more) if isinstance(each, Transact)]


class SlowWorld(SmallWorld):
    """Where some hosts' ticks are as far apart as is said of them."""

    def __init__(self, *names: str) -> None:
        self.gaps: dict[str, Iterator[float]] = {}
        self._due: dict[str, float] = {}
        super().__init__(*names)

    def slow(self, name: str, *gaps_s: float) -> None:
        """From now on the host's ticks are these apart, again and again."""
        self.gaps[name], self._due[name] = cycle(gaps_s), self.now

    def tell(self, name: str, event: Event) -> None:
        """As before, but for ticks that come too early."""
        if isinstance(event, Tick) and name in self.gaps:
            if event.at < self._due[name] - 1e-9:
                return
            self._due[name] = event.at + next(self.gaps[name])
        super().tell(name, event)

    def resigned(self) -> list[str]:
        """Who left the office by himself so far."""
        return [event.host for event in self.happened if event.kind == "leader.resigned"]


def slow_world() -> tuple[SlowWorld, str, list[str]]:
    world = SlowWorld("a", "b", "c")
    world.run(3)
    first = str(world.leads())
    return world, first, [name for name in world.hosts if name != first]


def test_a_leader_that_is_late_at_every_fourth_tick_gives_way_to_one_that_can_see_a_death() -> None:
    world, first, (dies, other) = slow_world()
    world.slow(first, 0.6, 0.1, 0.1, 0.1)
    world.run(5)
    world.off.add(dies)
    world.run(15)
    assert world.leads() == other
    assert world.hosts[other].leader.verdicts[dies] is rec.Verdict.DEAD
    assert [event.host for event in world.happened if event.kind == "observer.lagged"] == [first]


def test_a_late_leader_that_nobody_took_the_office_from_offers_it_again_once_others_may_be_timely() -> None:
    world, first, _ = slow_world()
    for name in world.hosts:
        world.slow(name, 0.7)
    world.run(20)
    late_one = str(world.leads())
    assert world.hosts[late_one].leader.late
    world.gaps = {late_one: world.gaps[late_one]}
    world.run(leader.EXCUSED_S)
    assert world.leads() not in (None, late_one)
    assert [world.resigned()[0], world.resigned()[-1]] == [first, late_one]


def test_while_all_are_late_somebody_leads_most_of_the_time() -> None:
    world, *_ = slow_world()
    for name in world.hosts:
        world.slow(name, 0.7)
    world.run(20)
    led_for = 0
    for _ in range(80):
        world.run(1)
        led_for += world.leads() is not None
    assert led_for > 60


def test_a_late_leader_that_stayed_for_being_alone_gives_way_to_the_first_that_is_back() -> None:
    world, first, others = slow_world()
    world.off |= set(others)
    world.run(8)
    world.slow(first, 0.7)
    world.run(10)
    assert world.leads() == first
    for name in others:
        world.boot(big_host(name))
    world.run(8)
    assert world.leads() in others


def test_a_late_leader_stays_while_nobody_else_could_lead(world: SmallWorld) -> None:
    world.off |= {world.other_than(world.leads())}
    world.off |= {world.other_than(world.leads())}
    world.run(8)
    _, done = late(led(world), leader.LATE_TICKS)
    assert Act.RESIGN not in [each.purpose.act for each in done if isinstance(each, Transact)]


def test_a_host_that_has_been_dead_for_long_is_probed_rarely(world: SmallWorld) -> None:
    host = world.other_than(world.leads())
    asked: list[float] = []

    def keep(_: str, command: Command) -> bool:
        if isinstance(command, Probe) and command.target == host and command.via is None:
            asked.append(world.now)
        return False

    world.swallow = keep
    world.off.add(host)
    world.run(50)
    died = world.now - 50
    soon, later = ([at for at in asked if since <= at - died < since + 10] for since in (0, 40))
    assert len(soon) > 15
    assert 2 <= len(later) <= 5


def test_who_goes_by_what_it_heard_is_whom_hosts_choose_for_witnesses() -> None:
    world = SmallWorld(*"abcdefg", timing=Timing(witnesses=2))
    world.run(2)
    for host, each in world.hosts.items():
        alone = replaced(each.node, mirror=replace(each.node.mirror, leader=None))
        chosen = node._recipients(NodeTurn(alone))
        witnesses = [name for name, one in world.hosts.items() if judging._is_witness(Turn(one.leader), host)]
        assert sorted(chosen) == sorted(witnesses)
