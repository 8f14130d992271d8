"""A fabricated record in which something was lost, doubled or broken is found out, and a clean one is not accused."""

from dataclasses import replace

import pytest

from outlive.lab.guests.history import (
    Answer,
    History,
    Seen,
    Unanswered,
    between,
    first_replies_ms,
    gaps_ms,
    judge,
    parse,
    together,
)

MS = 1_000_000


def clean(connections: int = 2, each: int = 50) -> History:
    """Connections that count in turn, each answer 2 ms after its request, one request a connection each 10 ms."""
    answers = tuple(
        Answer(connection, number, at := (number * 10 + connection) * MS, at + 2 * MS, value)
        for value, (number, connection) in enumerate(
            ((number, connection) for number in range(1, each + 1) for connection in range(connections)), start=1
        )
    )
    before = tuple(Seen(connection, 7, 0) for connection in range(connections))
    after = tuple(Seen(connection, 7 + each, 9999 * MS) for connection in range(connections))
    return History(frozenset(range(connections)), answers, seen=before + after, ended_ns=9999 * MS)


def with_count(history: History, connection: int, difference: int) -> History:
    """The same, but for the server's last count of one connection."""
    seen = list(history.seen)
    place = max(place for place, each in enumerate(seen) if each.connection == connection)
    seen[place] = replace(seen[place], count=seen[place].count + difference)
    return replace(history, seen=tuple(seen))


def test_a_clean_record_is_clean_and_its_times_are_told() -> None:
    outcome = judge(clean())
    assert outcome.clean
    assert outcome.answered == 100
    assert outcome.rtt_median_ms == 2.0
    assert outcome.rtt_p99_ms == 2.0
    assert outcome.longest_gap_ms == 10.0
    assert outcome.requests_per_s == pytest.approx(100 / 0.493)


def test_a_number_told_twice_means_that_an_acknowledged_one_was_forgotten() -> None:
    history = clean()
    answers = list(history.answers)
    answers[60] = replace(answers[60], value=answers[59].value)
    outcome = judge(replace(history, answers=tuple(answers)))
    assert outcome.lost == 1
    assert not outcome.clean


def test_a_server_that_counts_fewer_than_it_acknowledged_lost_them() -> None:
    assert judge(with_count(clean(), 1, -3)).lost == 3


def test_a_server_that_counts_more_than_was_asked_did_some_twice() -> None:
    assert judge(with_count(clean(), 0, 2)).duplicated == 2


def test_a_number_that_nobody_was_told_was_given_away_twice() -> None:
    history = clean()
    answers = tuple(replace(each, value=each.value + 1) if each.value > 40 else each for each in history.answers)
    assert judge(replace(history, answers=answers)).duplicated == 1
    assert judge(replace(history, answers=answers), alone=False).duplicated == 0


def test_what_was_under_way_may_have_been_done_or_not() -> None:
    history = clean()
    under_way = replace(history, unanswered=(Unanswered(0, 51, 600 * MS),))
    assert judge(under_way).clean
    assert judge(with_count(under_way, 0, 1)).clean
    assert judge(with_count(under_way, 0, 2)).duplicated == 1


def test_a_broken_connection_is_counted_and_one_without_a_last_count_is_not_called_clean() -> None:
    history = clean()
    outcome = judge(replace(history, broken=(1,), seen=history.seen[:-1]))
    assert outcome.broken_connections == 1
    assert outcome.unverified == 1
    assert not outcome.clean


def test_a_request_that_the_server_could_not_do_is_failed_and_not_lost() -> None:
    history = clean(1)
    answers = (*history.answers, Answer(0, 51, 600 * MS, 601 * MS, 0))
    outcome = judge(replace(history, answers=answers))
    assert (outcome.failed, outcome.lost, outcome.duplicated) == (1, 0, 0)
    assert not outcome.clean


def test_the_first_reply_after_a_cut_leaves_out_what_had_left_before() -> None:
    history = clean()
    cut = 203 * MS
    late = tuple(
        replace(each, received_ns=each.received_ns + 150 * MS) if each.sent_ns > cut else each
        for each in history.answers
        if not cut + 10 * MS < each.sent_ns < cut + 40 * MS
    )
    assert first_replies_ms(replace(history, answers=late), cut) == [159.0, 160.0]
    assert first_replies_ms(replace(history, answers=late), 9000 * MS) == [None, None]


def test_a_hanging_request_makes_a_gap_until_the_end() -> None:
    history = replace(clean(1), unanswered=(Unanswered(0, 51, 999 * MS),))
    assert max(gaps_ms(history)) == 9000.0


def test_answers_of_a_time_are_chosen_by_when_they_were_asked_for() -> None:
    assert len(between(clean(1), 100 * MS, 200 * MS).answers) == 10


def test_records_of_several_programs_are_judged_together() -> None:
    one, other = clean(), clean()
    shifted = replace(other, answers=tuple(replace(each, value=each.value + 100) for each in other.answers))
    assert judge(together((one, shifted))).clean
    assert judge(together((one, other))).lost == 100


def test_a_record_is_read_while_its_last_line_is_still_written() -> None:
    history = parse("c 0 5 100\ns 0 3 3 150\nr 0 1 200 300 9\nb 0 400 104\nu 0 2 350\nr 0 3 50")
    assert history.answers == (Answer(0, 1, 200, 300, 9),)
    assert history.broken == (0,)
    assert history.unanswered == (Unanswered(0, 2, 350),)
    assert history.seen == (Seen(0, 3, 150),)
    assert history.ended_ns is None
    assert parse("e 77\n").ended_ns == 77


def test_what_is_no_record_is_refused() -> None:
    with pytest.raises(ValueError, match="no line of a record"):
        parse("r 1 2\n")


def test_nothing_recorded_is_told_as_nothing() -> None:
    outcome = judge(History())
    assert outcome.answered == 0
    assert outcome.rtt_median_ms is None
    assert outcome.longest_gap_ms is None
