"""What an etcd gateway's refusals mean: surely not done, and why; or nobody knows.

Sorted by the texts and codes of etcd 3.4 to 3.6. The rule: what is not known here to be decided before anything was
done is taken for uncertain. Full databases are the trap: etcd may say that there is no room *after* it wrote.
"""

from enum import Enum, auto

from .base import Compacted, RequestRefused, StoreCorrupt, StoreDenied, StoreError, StoreUnavailable
from .etcd_messages import Fault

INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED, FAILED_PRECONDITION = 3, 5, 7, 9
OUT_OF_RANGE, UNIMPLEMENTED, DATA_LOSS, UNAUTHENTICATED = 11, 12, 15, 16


class Meaning(Enum):
    """What follows from a refusal."""

    ASK_ANOTHER = auto()
    """This member did nothing and will not; another one may."""
    LOGIN = auto()
    """Nothing was done; the token has to be got anew."""
    LEASE_GONE = auto()
    NO_ROOM = auto()
    """There is no room, and what was asked may have been done all the same."""
    COMPACTED = auto()
    FUTURE = auto()
    REFUSED = auto()
    """The request or its user is refused for good, with nothing done."""
    UNSURE = auto()


_ASK_ANOTHER = ("no leader", "too many requests", "not capable", "not supported in learner", "rpc not supported")
_LOGIN = ("invalid auth token", "auth store is old", "user name is empty")
_DENIED = ("permission denied", "user name not found", "authentication failed", "authentication is not enabled")


def meaning(fault: Fault) -> Meaning:
    """Sort a refusal."""
    text = fault.message.lower()
    if any(part in text for part in _LOGIN) or fault.code == UNAUTHENTICATED:
        return Meaning.LOGIN
    if any(part in text for part in _ASK_ANOTHER):
        return Meaning.ASK_ANOTHER
    if "lease not found" in text:
        return Meaning.LEASE_GONE
    if "space exceeded" in text:
        return Meaning.NO_ROOM
    if fault.code == OUT_OF_RANGE:
        return Meaning.FUTURE if "future" in text else Meaning.COMPACTED
    if any(part in text for part in ("corrupt", *_DENIED)) or fault.code in (
        INVALID_ARGUMENT,
        PERMISSION_DENIED,
        FAILED_PRECONDITION,
        UNIMPLEMENTED,
    ):
        return Meaning.REFUSED
    return Meaning.UNSURE


def refused(fault: Fault, what: str) -> StoreError:
    """The error for what was refused for good. what: what was asked, as in "The store's `what`"."""
    text = fault.message.lower()
    if "corrupt" in text:
        return StoreCorrupt(
            "A member of etcd found its data damaged, and etcd serves no more.",
            cause=fault.message,
            remedy="see `etcdctl alarm list` and etcd's guide to disaster recovery",
        )
    if any(part in text for part in (*_DENIED, *_LOGIN)) or fault.code in (PERMISSION_DENIED, UNAUTHENTICATED):
        return denied(fault.message)
    if fault.code == UNIMPLEMENTED:
        return StoreUnavailable(
            f"The store's {what} is not known to this etcd.",
            cause=fault.message,
            remedy="use etcd 3.4 or newer with its gRPC gateway on (enable-grpc-gateway)",
        )
    return RequestRefused(f"etcd refused the store's {what}.", cause=fault.message)


def denied(why: str) -> StoreDenied:
    """The error for a user that etcd does not know, or does not let do this."""
    return StoreDenied(
        "etcd does not let this host use the store.",
        cause=why,
        remedy="check [store_login] in the agent's file, and that the user may read and write the store's prefix",
    )


def compacted(revision: int) -> Compacted:
    """The error for a watch from before what etcd keeps, when it was compacted at `revision`."""
    return Compacted(revision + 1)
