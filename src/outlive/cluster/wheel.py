"""Which hosts are to be looked at when: a wheel of moments, each with its hosts.

A leader of ten thousand hosts cannot judge all of them at every tick, and need not: a host that was heard just now
stays alive until its silence has lasted. A host may come up too early, and is then put in again; it never comes up
late.
"""

from collections.abc import Iterable
from math import floor

from immutables import Map

Wheel = Map[int, tuple[str, ...]]

_EARLY = 1e-6
"""Sums of floats may end on either side of a moment; too early does no harm."""


def moment(at: float, step_s: float) -> int:
    """The number of the last moment that is not after `at`, of moments `step_s` apart."""
    return floor(at / step_s - _EARLY)


def due(wheel: Wheel, at: float, step_s: float) -> tuple[frozenset[str], Wheel]:
    """The hosts whose moment has come, and the wheel without them."""
    passed = [each for each in wheel if each <= floor(at / step_s)]
    hosts = frozenset().union(*(wheel[each] for each in passed))
    for each in passed:
        wheel = wheel.delete(each)
    return hosts, wheel


def put(wheel: Wheel, moments: Iterable[tuple[int, list[str]]]) -> Wheel:
    """The wheel with these hosts put in at their moments."""
    for number, hosts in moments:
        wheel = wheel.set(number, (*wheel.get(number, ()), *hosts))
    return wheel
