"""Silence is the peer's, never our own lateness; and only a pulse of the same reign breaks it."""

from hypothesis import given
from hypothesis import strategies as st

from outlive.replication.comm_config import HotValues
from outlive.replication.keepalive import SIZE, Pulse, Silence, pack, unpack
from outlive.replication.pace import Ahead, Pace
from outlive.replication.stream import Reign

KEY = b"k" * 32
REIGN = Reign("c1", "vm1", 3, 7)


def test_a_silent_peer_is_noticed_within_a_tick_of_the_threshold() -> None:
    silence = Silence(0.0)
    now = 0.0
    while silence.silent_s(now) < 0.15:
        now += 0.02
        silence.tick(now)
    assert 0.15 <= now <= 0.17 + 1e-9


def test_our_own_stall_is_not_the_peers_silence_but_no_excuse_for_ever() -> None:
    silence = Silence(0.0)
    silence.tick(0.6)
    assert silence.silent_s(0.6) < 0.05
    for stall in range(1, 5):
        silence.tick(0.6 + stall)
    assert silence.silent_s(4.6) > 3.0


def test_a_sign_of_life_ends_the_discount() -> None:
    silence = Silence(0.0)
    silence.tick(0.9)
    silence.heard(0.9)
    silence.tick(0.92)
    assert abs(silence.silent_s(1.12) - 0.22) < 1e-9


def test_a_pulse_comes_through() -> None:
    pulse = Pulse(True, 5, 1 << 40)
    assert unpack(pack(pulse, REIGN, KEY), REIGN, KEY) == pulse


@given(st.binary(max_size=SIZE + 5))
def test_garbage_is_no_pulse(datagram: bytes) -> None:
    assert unpack(datagram, REIGN, KEY) is None


def test_another_key_or_reign_or_a_changed_byte_is_no_pulse() -> None:
    datagram = pack(Pulse(True, 5, 9), REIGN, KEY)
    assert unpack(datagram, REIGN, b"l" * 32) is None
    assert unpack(datagram, Reign("c1", "vm1", 3, 8), KEY) is None
    for position in range(SIZE):
        changed = bytearray(datagram)
        changed[position] ^= 1
        assert unpack(bytes(changed), REIGN, KEY) is None


def test_somebody_who_waits_gets_an_epoch_after_the_floor_and_nobody_after_the_idle_time() -> None:
    pace = Pace(HotValues(floor_ms=1.0, idle_ms=100.0, overhead=0.5))
    pace.cut(10.0, 0.0005, 3, 1.0)
    assert abs(pace.wait_s(10.0, wanted=True) - 0.001) < 1e-9
    assert abs(pace.wait_s(10.0, wanted=False) - 0.1) < 1e-9
    assert pace.may_cut(10.0011)


@given(st.floats(0.0001, 1.0), st.floats(0.05, 0.95))
def test_a_busy_guest_runs_as_long_as_the_policy_says(pause_s: float, overhead: float) -> None:
    pace = Pace(HotValues(overhead=overhead))
    now = paused = 0.0
    for _ in range(200):
        now += max(0.0, pace.wait_s(now, wanted=True)) + pause_s
        paused += pause_s
        pace.cut(now, pause_s, 0, 1.0)
    assert paused / now <= overhead * 1.2 + 0.02
    assert pace.tell().pages == 0


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_the_less_a_guest_has_to_do_the_denser_its_epochs_may_come(busy: float, busier: float) -> None:
    waits = []
    for share in sorted((busy, busier)):
        pace = Pace(HotValues(floor_ms=1.0))
        for _ in range(100):
            pace.cut(1.0, 0.004, 0, share)
        waits.append(pace.wait_s(1.0, wanted=True))
    assert 0.001 - 1e-9 <= waits[0] <= waits[1] + 1e-9


def test_pages_are_copied_ahead_when_there_are_many_and_as_a_rule_few_are_written_again() -> None:
    ahead = Ahead()
    told = []
    for before, standing in [(0, 70), (0, 4000), (4000, 100), (4000, 3900), (4000, 0), (4000, 2200), (4000, 100)]:
        ahead.learn(before, standing)
        told.append(ahead.worthwhile)
    assert told == [False, *[True] * 6], "once is no rule"
    told = []
    for _ in range(60):
        ahead.learn(4000 if ahead.worthwhile else 0, 4000)
        told.append(ahead.worthwhile)
    assert told.index(False) < 5
    again = told.index(True, told.index(False))
    assert again - told.index(False) == 50


def test_the_few_pages_of_an_idle_guest_tell_nothing_about_many() -> None:
    ahead = Ahead()
    for _ in range(40):
        ahead.learn(6, 6)
    ahead.learn(6, 4000)
    assert ahead.worthwhile
