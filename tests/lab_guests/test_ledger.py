"""A database that forgot a commit or has one twice is found out by what pgbench's clients were told."""

from outlive.lab.guests.ledger import Transaction, judge_ledger, parse_log


def told(clients: int = 2, each: int = 10) -> list[Transaction]:
    """Clients that commit to the ledger and to pgbench's own tables in turn, one transaction each 5 ms."""
    return [
        Transaction(client, number % 2, 4000, 1_000_000 + 5000 * number)
        for number in range(2 * each)
        for client in range(clients)
    ]


def rows(clients: int = 2, each: int = 10) -> list[tuple[int, int]]:
    return [(client, number) for client in range(clients) for number in range(1, each + 1)]


def test_all_that_was_told_is_there() -> None:
    outcome = judge_ledger(told(), rows())
    assert outcome.clean
    assert (outcome.transactions, outcome.acknowledged) == (40, 20)
    assert outcome.latency_median_ms == 4.0
    assert outcome.longest_gap_ms == 5.0


def test_a_commit_that_was_told_and_is_missing_is_lost() -> None:
    outcome = judge_ledger(told(), [row for row in rows() if row not in {(1, 10), (0, 3)}])
    assert outcome.lost == 2
    assert not outcome.clean


def test_a_commit_that_is_there_twice_is_found() -> None:
    assert judge_ledger(told(), [*rows(), (1, 4)]).duplicated == 1


def test_the_one_under_way_may_be_there_but_no_further_one() -> None:
    assert judge_ledger(told(), [*rows(), (0, 11)]).clean
    assert judge_ledger(told(), [*rows(), (0, 11), (0, 12), (5, 7)]).foreign == 2


def test_what_the_database_itself_complains_of_is_not_clean() -> None:
    assert not judge_ledger(told(), rows(), complaints=["an index lacks a row"]).clean


def test_a_log_is_read_without_what_failed_or_was_cut_short() -> None:
    text = "0 0 1500 0 1795272299 250000\n1 0 failed 1 1795272299 260000\n0 1 1700 1 1795272299 2700"
    assert parse_log(text) == [Transaction(0, 0, 1500, 1795272299250000)]
