"""Forgetting what requests were answered, by age and number: done by one agent, the leader's, every so often.

An answer is kept so that a client may ask again that never heard it, which it does within seconds; a day is plenty. No
decision rests on any of it.
"""

import time

from outlive.cluster import records as rec
from outlive.cluster.transaction import Delete, KeyValue, Transaction
from outlive.store.base import Store

KEPT_S = 24 * 3600
MOST_KEPT = 2000
FORGOTTEN_AT_ONCE = 100
WITHIN_S = 5.0
EVERY_S = 30.0


async def forget(store: Store, unix_s: float | None = None) -> int:
    """Delete what is too old, and the oldest beyond the number kept, a transaction's worth at most; how many.

    unix_s: the wall clock's time now. Raises StoreError.
    """
    now_ms = (time.time() if unix_s is None else unix_s) * 1000
    listing = await store.list(rec.REQUESTS, timeout_s=WITHIN_S)
    oldest_first = sorted(listing.keys, key=lambda each: each.create_revision)
    surplus = max(0, len(oldest_first) - MOST_KEPT)
    gone = [
        each.key for number, each in enumerate(oldest_first) if number < surplus or _too_old(each, now_ms)
    ][:FORGOTTEN_AT_ONCE]  # fmt: skip
    if gone:
        await store.transact(Transaction((), tuple(Delete(key) for key in gone)), timeout_s=WITHIN_S)
    return len(gone)


def _too_old(kept: KeyValue, now_ms: float) -> bool:
    """Whether it is older than it is kept; what cannot be read is of no use to anybody."""
    try:
        record = rec.decode(kept.key, kept.value)
    except rec.BadRecord:
        return True
    return not isinstance(record, rec.RequestRecord) or record.unix_ms < now_ms - KEPT_S * 1000
