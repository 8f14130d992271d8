"""What requests were answered is forgotten by age and by number, the oldest first."""

from outlive.agent import forgetting
from outlive.cluster import records as rec
from outlive.cluster.transaction import Delete, KeyValue, Transaction, TransactionResult
from outlive.store.base import Listing

NOW_S = 1_800_000_000.0


class Kept:
    """As much of a store as forgetting needs."""

    def __init__(self, ages_s: list[float]) -> None:
        records = [
            rec.RequestRecord(f"r{number}", "", "a", int((NOW_S - age_s) * 1000))
            for number, age_s in enumerate(ages_s)
        ]  # fmt: skip
        self.keys = {rec.REQUESTS + each.id: rec.encode(each) for each in records}

    async def list(self, prefix: str, *, timeout_s: float) -> Listing:
        found = [KeyValue(key, value, number + 1, number + 1) for number, (key, value) in enumerate(self.keys.items())]
        return Listing(1, tuple(each for each in found if each.key.startswith(prefix)))

    async def transact(self, transaction: Transaction, *, timeout_s: float) -> TransactionResult:
        for write in transaction.writes:
            assert isinstance(write, Delete)
            del self.keys[write.key]
        return TransactionResult(True, 1)


async def forget(kept: Kept) -> int:
    return await forgetting.forget(kept, NOW_S)  # type: ignore[arg-type]


async def test_the_old_are_forgotten_and_the_young_are_kept() -> None:
    kept = Kept([forgetting.KEPT_S + 1, forgetting.KEPT_S - 1, 0])
    assert await forget(kept) == 1
    assert list(kept.keys) == ["requests/r1", "requests/r2"]
    assert await forget(kept) == 0


async def test_no_more_than_a_bound_are_kept_the_newest() -> None:
    kept = Kept([0.0] * (forgetting.MOST_KEPT + forgetting.FORGOTTEN_AT_ONCE + 1))
    assert await forget(kept) == forgetting.FORGOTTEN_AT_ONCE
    assert await forget(kept) == 1
    assert (len(kept.keys), next(iter(kept.keys))) == (
        forgetting.MOST_KEPT,
        f"requests/r{forgetting.FORGOTTEN_AT_ONCE + 1}",
    )


async def test_what_cannot_be_read_is_forgotten() -> None:
    kept = Kept([0.0])
    kept.keys["requests/garbled"] = b"{"
    assert await forget(kept) == 1
    assert list(kept.keys) == ["requests/r0"]
