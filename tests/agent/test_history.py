"""A leader has the store forget what is older than some minutes, and never what is younger."""

from outlive.agent.history import BETWEEN_S, KEPT_S, History


def test_only_what_is_older_than_some_minutes_may_be_forgotten() -> None:
    history = History()
    told = {}
    for now in range(0, int(2 * KEPT_S), 5):
        if (revision := history.forgettable(now, now * 10)) is not None:
            told[now] = revision
    assert told
    assert all(revision <= (now - KEPT_S) * 10 for now, revision in told.items())
    assert min(told) >= KEPT_S
    assert len(told) <= KEPT_S / BETWEEN_S + 1


def test_one_that_leads_again_begins_anew() -> None:
    history = History()
    history.forgettable(0.0, 1)
    history.begin_anew()
    assert history.forgettable(KEPT_S, 100) is None
    assert history.forgettable(2 * KEPT_S, 200) == 100
