"""What the tests of the wire start from: a cluster's key, another's, and heartbeats to change one thing in."""

from collections.abc import Callable

import pytest

from outlive.cluster.heartbeat import Flags, Heartbeat, ModuleStatus
from outlive.wire.seal import Seal


@pytest.fixture
def seal() -> Seal:
    return Seal("0123456789abcdef", b"k" * 32)


@pytest.fixture
def wrong_key() -> Seal:
    """The same cluster's id with another key."""
    return Seal("0123456789abcdef", b"x" * 32)


@pytest.fixture
def foreign() -> Seal:
    """Another cluster that happens to have the same key."""
    return Seal("fedcba9876543210", b"k" * 32)


@pytest.fixture
def heartbeat() -> Callable[..., Heartbeat]:
    def build(sequence: int = 1, host: str = "a", cluster: str = "0123456789abcdef") -> Heartbeat:
        statuses = (ModuleStatus.RUNNING, ModuleStatus.FAILED, ModuleStatus.RESTORING)
        return Heartbeat(cluster, host, "ab" * 16, sequence, Flags.STORE_REACHABLE, 0.25, 7, b"tabledig", statuses)

    return build
