"""Keeping etcd's leases alive, and knowing that it counted.

etcd's leader answers keep-alives from its own memory. One that lost its office and does not know yet, because it stood
still or is cut off, takes them in vain, while its successor counts the lease's time from its own beginning. So a
keep-alive counts only between two reads that each needed a majority, by way of the same member, in the same term: then
nobody else can have led meanwhile. The second read is the first one of the next keep-alive.

One thing no client can prevent: an old leader of etcd before 3.4.31 or 3.5.13 that wakes up may have leases ended that
its successor kept alive. So nothing safe may rest on a lease lasting, and nothing does.
"""

import asyncio

from outlive.config.store_address import Endpoint

from . import etcd_messages as say
from .base import (
    LeaseGone,
    StoreCorrupt,
    StoreDenied,
    StoreError,
    StoreReplaced,
    StoreUnavailable,
    StoreUncertain,
)
from .boot_clock import boot_time_s
from .etcd_exchange import Refusal
from .etcd_faults import Meaning, refused
from .etcd_gateway import LEAST_ATTEMPT_S, Gateway, Kind

LOST_LEASE_LOOKS, AGAIN_S = 3, 0.1


class Keeper:
    """Keeps the leases of one store alive. mark: a key that may be read."""

    def __init__(self, gateway: Gateway, mark: bytes) -> None:
        self._gateway = gateway
        self._mark = mark
        self._proven_term: tuple[Endpoint, int] | None = None

    async def keep_alive(self, lease_id: int, until: float) -> int:
        """Begin a lease's time anew, before `until` on the boot clock; its seconds. Raises what `Store` says."""
        lost, unsure = 0, False
        while True:
            endpoint = self._gateway.preferred
            share_s = max(LEAST_ATTEMPT_S, (until - boot_time_s()) / len(self._gateway.address.endpoints))
            try:
                ttl_s = await self._kept_alive(lease_id, endpoint, min(until, boot_time_s() + share_s))
            except (StoreDenied, StoreReplaced, StoreCorrupt) as error:
                if unsure:
                    raise _keep_alive_uncertain(str(error)) from error
                raise
            except (StoreUncertain, StoreUnavailable) as error:
                self._gateway.turn(endpoint)
                self._proven_term = None
                unsure = unsure or isinstance(error, StoreUncertain)
                if boot_time_s() + AGAIN_S >= until:
                    raise (_keep_alive_uncertain(str(error)) if unsure else error) from error
                await asyncio.sleep(AGAIN_S)
                continue
            if ttl_s:
                return ttl_s
            # It was sent, and may have been taken by whoever leads.
            unsure = unsure or ttl_s is None
            lost += ttl_s == 0
            if lost >= LOST_LEASE_LOOKS:
                raise LeaseGone(lease_id)
            # A leader that was just elected may not have read all that was written before it.
            await asyncio.sleep(AGAIN_S)

    async def _kept_alive(self, lease_id: int, endpoint: Endpoint, until: float) -> int | None:
        """The seconds that a lease has again, by way of one member; 0 for one that is not known there.

        None when nobody can say, because the leader changed meanwhile. Raises what asking raises.
        """
        if self._proven_term is None or self._proven_term[0] != endpoint:
            await self._prove_term(endpoint, until)
        before = self._proven_term
        try:
            kept = await self._gateway.ask(
                "keep-alive", "/v3/lease/keepalive", say.request(ID=lease_id), say.KeptAlive,
                until=until, kind=Kind.REPEATABLE, at=endpoint,
            )  # fmt: skip
        except Refusal as error:
            if error.meaning is not Meaning.LEASE_GONE:
                raise refused(error.fault, "keep-alive") from None
            kept = say.KeptAlive(say.Header())
        try:
            await self._prove_term(endpoint, until)
        except StoreError as error:
            raise _keep_alive_uncertain(str(error)) from error
        if before != self._proven_term or (kept.TTL > 0 and before != (endpoint, kept.header.raft_term)):
            return None
        return max(0, kept.TTL)

    async def _prove_term(self, endpoint: Endpoint, until: float) -> None:
        """Note the cluster's term as a read that needed a quorum shows it, through this member."""
        self._proven_term = None
        body = say.range_request(self._mark)
        try:
            found = await self._gateway.ask(
                "reading", "/v3/kv/range", body, say.Ranged, until=until, kind=Kind.READ, at=endpoint
            )
        except Refusal as error:
            raise refused(error.fault, "reading") from None
        self._proven_term = endpoint, found.header.raft_term


def _keep_alive_uncertain(cause: str) -> StoreUncertain:
    return StoreUncertain("It is not known whether the store's lease was kept alive.", cause=cause)
