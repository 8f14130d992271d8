"""QEMU's monitor: `qemu.qmp` with a deadline on every call, and with sentences for errors.

Nothing else in the project imports that library. What a command means is known to whoever gives it. The invariant:
no call here waits without a limit, and whatever goes wrong is one of the errors below.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qemu.qmp import EventListener, ExecuteError, QMPClient, QMPError, Runstate

from outlive.errors import Failed

CALL_WITHIN_S = 10.0
CONNECT_WITHIN_S = 5.0
CLOSE_WITHIN_S = 1.0

# What it would say there comes to us as errors.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)


class VmUnreachable(Failed):
    """QEMU's monitor does not answer; nothing follows from that about the guest."""

    id = "vm.unreachable"


class VmFailed(Failed):
    """QEMU answered, and refused or failed."""

    id = "vm.failed"


class Monitor:
    """A connection to one monitor socket."""

    def __init__(self, client: QMPClient) -> None:
        self._client = client

    @classmethod
    async def connect(cls, path: Path, within_s: float = CONNECT_WITHIN_S) -> "Monitor":
        """Connect and agree on what is spoken. Raises VmUnreachable."""
        client = QMPClient("outlive")
        try:
            async with asyncio.timeout(within_s):
                await client.connect(str(path))
        except (QMPError, OSError, EOFError, TimeoutError) as error:
            await _closed(client)
            raise VmUnreachable("The emulator's monitor does not answer.", cause=_cause(error, within_s)) from error
        except BaseException:
            await _closed(client)
            raise
        return cls(client)

    @property
    def connected(self) -> bool:
        """Whether it has not been lost."""
        return self._client.runstate is Runstate.RUNNING

    async def call(
        self, command: str, arguments: Mapping[str, object] | None = None, *, within_s: float = CALL_WITHIN_S
    ) -> Any:
        """Return what a command returns. Raises VmFailed when QEMU refuses it, VmUnreachable when it is silent."""
        try:
            async with asyncio.timeout(within_s):
                return await self._client.execute(command, arguments)
        except ExecuteError as error:
            raise VmFailed(f"The emulator refused {command}.", cause=str(error)) from error
        except (QMPError, OSError, EOFError, TimeoutError) as error:
            raise VmUnreachable(
                f"The emulator did not answer to {command}.", cause=_cause(error, within_s)
            ) from error  # fmt: skip

    async def hand_over(self, descriptor: int, name: str) -> None:
        """Give QEMU a file descriptor under a name, as for `fd:name`; ours stays open."""
        try:
            self._client.send_fd_scm(descriptor)
        except (QMPError, OSError, ValueError) as error:
            raise VmUnreachable("The emulator took no descriptor.", cause=_cause(error, 0.0)) from error
        await self.call("getfd", {"fdname": name})

    def listen(self) -> "Events":
        """Every event from now on; close what is returned."""
        return Events(self._client)

    async def close(self) -> None:
        """Let go of the connection; QEMU lives on."""
        await _closed(self._client)


class Events:
    """The events of one connection, in order."""

    def __init__(self, client: QMPClient) -> None:
        self._client = client
        self._listener = EventListener()
        client.register_listener(self._listener)

    async def next(self) -> Mapping[str, Any]:
        """Return the next event, whenever it comes. Raises VmUnreachable when the connection is lost before."""
        hearing = asyncio.ensure_future(self._listener.get())
        losing = asyncio.ensure_future(self._lost())
        try:
            await asyncio.wait({hearing, losing}, return_when=asyncio.FIRST_COMPLETED)
            if not hearing.done():
                raise VmUnreachable("The connection to the emulator's monitor was lost.")
            return hearing.result()
        finally:
            losing.cancel()
            hearing.cancel()

    def close(self) -> None:
        """Hear no more."""
        self._client.remove_listener(self._listener)

    async def _lost(self) -> None:
        while self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()


async def _closed(client: QMPClient) -> None:
    # A lost connection tells how it was lost when it is closed, which we know by then.
    with contextlib.suppress(QMPError, OSError, EOFError, TimeoutError):
        async with asyncio.timeout(CLOSE_WITHIN_S):
            await client.disconnect()


def _cause(error: BaseException, within_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {within_s:g} s"
    return str(error) or type(error).__name__
