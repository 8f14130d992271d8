"""Whatever a store answers, every transaction ends with the outcome that is true, and renewals wait for nothing."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from outlive.agent.perform import Performer
from outlive.cluster import events as ev
from outlive.cluster.commands import Act, GrantLease, KeepAlive, Purpose, Transact
from outlive.cluster.mirror import Mirror
from outlive.cluster.timing import Timing
from outlive.cluster.transaction import Transaction, TransactionResult
from outlive.store.base import Lease, LeaseGone, RequestRefused, StoreTimeout, StoreUncertain

EMPTY = Transaction((), ())


class Answering:
    """A store that answers as told; and a journal that is durable when told."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self._answer = answer
        self.durable = asyncio.Event()
        self.handed = 1

    async def transact(self, transaction: Transaction, *, timeout_s: float) -> Any:
        return self._answer()

    async def grant_lease(self, ttl_s: int, *, timeout_s: float) -> Any:
        return self._answer()

    async def keep_alive(self, lease: int, *, timeout_s: float) -> Any:
        return self._answer()

    async def saved(self, number: int) -> str:
        await self.durable.wait()
        return ""


def raising(error: Exception) -> Callable[[], Any]:
    def answer() -> Any:
        raise error

    return answer


async def answered(command: Any, answer: Callable[[], Any], *, durable: bool = True) -> list[ev.Event]:
    """What the machine hears of a command, once all that it led to has ended (or a moment has passed)."""
    both = Answering(answer)
    if durable:
        both.durable.set()
    heard: list[ev.Event] = []
    means: Any = SimpleNamespace(store=both, journal=both)
    async with asyncio.TaskGroup() as tasks:
        Performer("a", Timing(), means, lambda: 5.0, tasks, Mirror).begin(command, heard.append)
        if not durable:
            await asyncio.sleep(0.05)
            early = list(heard)
            both.durable.set()
            return early
    return heard


@pytest.mark.parametrize(
    ("answer", "outcome", "revision"),
    [
        (lambda: TransactionResult(True, 8), ev.Outcome.DONE, 8),
        (lambda: TransactionResult(False, 8), ev.Outcome.REFUSED, 8),
        (raising(LeaseGone(3)), ev.Outcome.REFUSED, 0),
        (raising(StoreUncertain("Perhaps.")), ev.Outcome.UNKNOWN, 0),
        (raising(StoreTimeout("No.")), ev.Outcome.UNKNOWN, 0),
        (raising(RequestRefused("Never.")), ev.Outcome.UNKNOWN, 0),
    ],
)
async def test_a_transaction_ends_with_what_is_known_of_it(
    answer: Callable[[], Any], outcome: ev.Outcome, revision: int
) -> None:
    (event,) = await answered(Transact(Purpose(Act.REPORT, "web", 2), EMPTY), answer)
    assert isinstance(event, ev.Transacted)
    assert (event.outcome, event.revision, event.sent_at) == (outcome, revision, 5.0)
    assert event.purpose == Purpose(Act.REPORT, "web", 2)


async def test_a_report_waits_for_the_journal_and_a_renewal_does_not() -> None:
    done = lambda: TransactionResult(True, 8)  # noqa: E731
    assert await answered(Transact(Purpose(Act.REPORT), EMPTY), done, durable=False) == []
    assert len(await answered(Transact(Purpose(Act.RENEW), EMPTY), done, durable=False)) == 1


async def test_a_lease_is_granted_or_refused_and_keeping_it_alive_is_never_answered() -> None:
    assert await answered(GrantLease(4), lambda: Lease(7, 4)) == [ev.LeaseGranted(5.0, 7)]
    assert await answered(GrantLease(4), raising(StoreTimeout("No."))) == [ev.LeaseRefused(5.0, "No.")]
    for answer in (lambda: 4, raising(LeaseGone(7)), raising(StoreTimeout("No."))):
        assert await answered(KeepAlive(7), answer) == []
