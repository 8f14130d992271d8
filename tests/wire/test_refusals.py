"""Refusals are all counted, in bounded memory, and told in a bounded number of lines."""

from outlive.wire.record import Reason, Refused
from outlive.wire.refusals import LINES, LINES_WITHIN_S, MOST_ADDRESSES, SAME_EVERY_S, Refusals, Telling

WRONG = Refused(Reason.WRONG_TAG, "the tag is wrong")


def test_the_first_is_told_and_the_rest_are_counted_until_a_minute_has_passed() -> None:
    refusals = Refusals()
    told = [refusals.count(WRONG, "192.0.2.1", at) for at in (0.0, 1.0, 2.0, SAME_EVERY_S)]
    assert told == [
        Telling(Reason.WRONG_TAG, "192.0.2.1", "the tag is wrong", times=1),
        None,
        None,
        Telling(Reason.WRONG_TAG, "192.0.2.1", "the tag is wrong", times=3),
    ]


def test_a_flood_from_many_addresses_fills_neither_memory_nor_log() -> None:
    refusals = Refusals()
    lines = sum(refusals.count(WRONG, f"192.0.2.{number}", 0.0) is not None for number in range(10_000))
    assert lines == LINES
    assert len(refusals.by_address()) == MOST_ADDRESSES
    assert refusals.by_reason == {Reason.WRONG_TAG: 10_000}
    assert refusals.count(WRONG, "198.51.100.1", LINES_WITHIN_S) is not None


def test_each_reason_from_an_address_is_told_on_its_own() -> None:
    refusals = Refusals()
    refusals.count(WRONG, "192.0.2.1", 0.0)
    assert refusals.count(Refused(Reason.OTHER_VERSION, "version 9"), "192.0.2.1", 0.0) is not None
    assert refusals.by_address() == {
        (Reason.WRONG_TAG, "192.0.2.1"): 1,
        (Reason.OTHER_VERSION, "192.0.2.1"): 1,
    }
