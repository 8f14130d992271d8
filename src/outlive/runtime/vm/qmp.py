"""QEMU's monitor: `qemu.qmp` with a deadline on every call, and with sentences for errors.

Nothing else in the project imports that library. What a command means is known to whoever gives it. The invariant:
no call here waits without a limit, and whatever goes wrong is one of the errors below.
"""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from outlive.errors import Failed

CALL_WITHIN_S = 10.0
CONNECT_WITHIN_S = 5.0


class VmUnreachable(Failed):
    """QEMU's monitor does not answer; nothing follows from that about the guest."""

    id = "vm.unreachable"


class VmFailed(Failed):
    """QEMU answered, and refused or failed."""

    id = "vm.failed"


class Monitor:
    """A connection to one monitor socket."""

    @classmethod
    async def connect(cls, path: Path, within_s: float = CONNECT_WITHIN_S) -> "Monitor":
        """Connect and agree on what is spoken. Raises VmUnreachable."""
        raise NotImplementedError

    @property
    def connected(self) -> bool:
        """Whether it has not been lost."""
        raise NotImplementedError

    async def call(
        self, command: str, arguments: Mapping[str, object] | None = None, *, within_s: float = CALL_WITHIN_S
    ) -> Any:
        """Return what a command returns. Raises VmFailed when QEMU refuses it, VmUnreachable when it is silent."""
        raise NotImplementedError

    async def hand_over(self, descriptor: int, name: str) -> None:
        """Give QEMU a file descriptor under a name, as for `fd:name`; ours stays open."""
        raise NotImplementedError

    def events(self) -> AsyncIterator[Mapping[str, Any]]:
        """Each event from now on, until the connection is lost. Raises VmUnreachable then."""
        raise NotImplementedError

    async def close(self) -> None:
        """Let go of the connection; QEMU lives on."""
        raise NotImplementedError
