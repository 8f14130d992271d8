"""What a leader of very many hosts leaves out changes no decision: it decides as one that looks at everything."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from outlive.cluster import commands as do
from outlive.cluster import courses, leader
from outlive.cluster import events as ev
from outlive.cluster import records as rec
from outlive.cluster.heartbeat import Flags, Heartbeat
from outlive.cluster.host import Capacity, Host
from outlive.cluster.leader_state import LeaderState, Turn
from outlive.cluster.mirror import Mirror, changed, snapshot
from outlive.cluster.repeats import Repeats
from outlive.cluster.signs import Sightings, Signs
from outlive.cluster.timing import Timing
from outlive.cluster.transaction import Delete, KeyValue

TIMING = Timing()
HOSTS = tuple("abcdef")
ME = HOSTS[0]


def beat(host: str, sequence: int, flags: Flags = Flags.NONE) -> Heartbeat:
    return Heartbeat("c" * 16, host, "ab" * 16, sequence, flags, 0.0, 1, b"tabledig")


class Led:
    """A leader whose store is a few keys, and what it did with each tick."""

    def __init__(self) -> None:
        self.at, self.revision, self.sequence = 100.0, 0, 0
        self.mirror = Mirror()
        self.said: dict[str, tuple[int, float]] = {}
        keys = [(rec.HOSTS + name, rec.encode(Host(name, "s", "::1", 1, 1, Capacity(1, 1)))) for name in HOSTS]
        keys += [(rec.CLAIMS + name, rec.encode(claim(name, 0))) for name in HOSTS]
        keys.append((rec.LEADER, rec.encode(rec.LeaderRecord(ME))))
        self.write(dict(keys))
        self.state = leader.start(ME, TIMING)
        self.step(ev.AgentStarted(self.at, "run", None, {}, 0.0, self.mirror))

    def write(self, keys: dict[str, bytes | None]) -> None:
        self.revision += 1
        changes = [
            Delete(key) if value is None else KeyValue(key, value, 1, self.revision) for key, value in keys.items()
        ]
        self.mirror = changed(self.mirror, self.revision, changes, self.at)

    def tell(self, keys: dict[str, bytes | None]) -> None:
        self.write(keys)
        self.step(ev.StoreMoved(self.at, self.mirror, frozenset(keys)))

    def step(self, event: ev.Event) -> tuple[do.Command, ...]:
        self.state, commands = leader.step(self.state, event)
        for command in commands:
            if isinstance(command, do.Transact) and command.purpose.act is do.Act.VERDICT:
                [write] = command.transaction.writes
                value = None if isinstance(write, Delete) else write.value
                self.write({write.key: value})
                self.step(ev.Transacted(self.at, command.purpose, self.at, ev.Outcome.DONE, self.revision))
                self.step(ev.StoreMoved(self.at, self.mirror, frozenset((write.key,))))
        return commands

    def hear(self, host: str, flags: Flags | None = None) -> None:
        self.sequence += 1
        if flags is not None or host not in self.said:
            self.step(ev.HeartbeatReceived(self.at, beat(host, self.sequence, flags or Flags.NONE)))
        self.said[host] = (self.sequence, self.at)

    def repeats(self) -> Repeats:
        names = sorted(self.said)
        places = {name: place for place, name in enumerate(names)}
        return Repeats(places, [self.said[name][0] for name in names], [self.said[name][1] for name in names])


def claim(host: str, sequence: int) -> rec.ClaimRecord:
    return rec.ClaimRecord(host, "ab" * 16, "run", 1, sequence)


hosts = st.sets(st.sampled_from(HOSTS[1:]))
steps = st.lists(
    st.fixed_dictionaries(
        {
            "dt": st.sampled_from((0.1, 0.1, 0.1, 0.11, 0.25, 0.7)),
            "heard": st.one_of(st.just(set(HOSTS[1:])), hosts),
            "isolated": st.one_of(st.just(set()), hosts),
            "gone": st.one_of(st.just(set()), st.just(set()), hosts),
            "spoilt": st.one_of(st.just(set()), st.just(set()), hosts),
            "slots": st.one_of(st.just(set()), hosts),
            "forgotten": st.one_of(st.just(set()), st.just(set()), hosts),
        }
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_who_looks_only_at_hosts_that_may_be_silent_decides_as_who_looks_at_all(
    played: list[dict[str, object]],
) -> None:
    led = Led()
    for number, step in enumerate(played):
        led.at += float(str(step["dt"]))
        for host in sorted(_names(step, "heard")):
            led.hear(host, Flags.ISOLATED if host in _names(step, "isolated") else None)
        for host in sorted(_names(step, "slots")):
            led.sequence += 1
            led.step(ev.SlotChanged(led.at, beat(host, led.sequence)))
        keys: dict[str, bytes | None] = {rec.CLAIMS + host: None for host in _names(step, "gone")}
        keys |= {rec.VERDICTS + host: b"?" for host in _names(step, "spoilt")}
        keys[rec.CLAIMS + ME] = rec.encode(claim(ME, number))
        led.tell(keys)
        for host in _names(step, "forgotten"):
            led.said.pop(host, None)
        led.step(ev.HeartbeatsRepeated(led.at, led.repeats()))
        tick = ev.Tick(led.at)
        thorough, expected = leader.step(replace(led.state, wary=None), tick)
        quick, commands = leader.step(led.state, tick)
        assert quick.verdicts == thorough.verdicts
        assert commands == expected
        led.step(tick)


def _names(step: dict[str, object], what: str) -> set[str]:
    found = step[what]
    assert isinstance(found, set)
    return found


def test_a_host_that_only_repeats_itself_stays_alive_and_one_that_stops_is_suspected_on_the_next_tick() -> None:
    led = Led()
    silent_from = led.at + 3.0
    while led.state.verdicts.get("b") is not rec.Verdict.SUSPECT:
        led.at += TIMING.tick_s
        for host in HOSTS[1:]:
            if host != "b" or led.at < silent_from:
                led.hear(host)
        led.tell({rec.CLAIMS + ME: rec.encode(claim(ME, led.sequence))})
        led.step(ev.HeartbeatsRepeated(led.at, led.repeats()))
        led.step(ev.Tick(led.at))
    assert led.at == pytest.approx(led.said["b"][1] + TIMING.suspect_s, abs=TIMING.tick_s + 1e-6)
    assert {led.state.verdicts[host] for host in HOSTS if host != "b"} == {rec.Verdict.ALIVE}


def test_what_was_said_again_counts_as_newer_than_a_slot_written_before_it() -> None:
    seen = Sightings().set("b", Signs(heartbeat=beat("b", 5), heartbeat_at=1.0, slot=beat("b", 7), slot_at=1.4))
    newest = seen.get("b").newest()
    assert newest is not None
    assert newest.sequence == 7
    again = Sightings(seen.kept, Repeats({"b": 0}, (8,), (1.6,))).get("b")
    assert again.newest() is again.heartbeat
    assert (again.newest_at(), again.repeated) == (1.6, 8)


def test_where_there_are_very_many_workloads_each_has_its_turn_and_the_restless_have_it_always(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(courses, "LOOKED_AT_ONCE", 3)
    names = [f"w{number}" for number in range(8)]
    keys = [KeyValue(rec.PLACEMENTS + name, rec.encode(rec.PlacementRecord(name, 1, None)), 1, 1) for name in names]
    state: LeaderState = replace(leader.start(ME, TIMING), mirror=snapshot(Mirror(), 1, keys, 0.0))
    turn = Turn(replace(state, restless=frozenset(("w6",))))
    looks = [courses.looked_at_by_turns(turn) for _ in range(3)]
    assert all("w6" in look and len(look) <= 4 for look in looks)
    assert {name for look in looks for name in look} == set(names)


@given(st.lists(st.tuples(st.sampled_from(("v", "w", "x")), st.sampled_from((None, "a", "b", "c"))), max_size=20))
def test_the_picture_knows_who_has_which_workloads(moves: list[tuple[str, str | None]]) -> None:
    mirror = Mirror()
    for revision, (name, host) in enumerate(moves, start=1):
        record = rec.PlacementRecord(name, revision, host, standby="c" if host == "a" else None)
        change = KeyValue(rec.PLACEMENTS + name, rec.encode(record), 1, revision)
        mirror = changed(mirror, revision, [Delete(change.key) if host == "b" and revision % 3 == 0 else change], 0.0)
        expected: dict[str, set[str]] = {}
        for each in mirror.placements.values():
            for there in {each.record.host, each.record.standby} - {None}:
                expected.setdefault(str(there), set()).add(each.record.workload)
        assert {there: set(found) for there, found in mirror.there.items()} == expected
