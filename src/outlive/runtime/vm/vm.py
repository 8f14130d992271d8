"""One virtual machine at one generation on this host: a `Runtime` whose only module is the emulator.

QEMU runs under a runner of its own, as a service's program does, and outlives the agent. What it does is followed
over its monitor socket. Whether it runs is never read from that socket's silence: QEMU has ended when its process has,
and a guest has failed only when QEMU says so or the rules of `guest_watch` are met. The invariants are those of
`outlive.runtime.base.Runtime`: nothing is started while anything of it may still run, and `stop` returns only when
nothing runs. Nothing here lets a guest go on that was stopped by others: a standby and a machine that moved away are
left as they are.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.workload import Workload
from outlive.runtime.base import Told, Whereabouts
from outlive.runtime.service import Premises

from .host import HostFacts
from .qmp import Monitor
from .seat import Seat
from .states import GuestState


@dataclass(frozen=True, slots=True)
class Noted:
    """Something that happened to a guest beside its module's status.

    what: guest.paused, guest.resumed, guest.reset, guest.panicked, guest.powered-off, guest.disk-failed,
          guest.silent, guest.waiting, console.trimmed.
    """

    what: str
    sentence: str


class Vm:
    """A workload of kind vm at one generation on this host: a `Runtime`.

    tasks: outlives it.  may_act: whether the host's claim is in force, asked just before anything is started.
    noted: takes what happens beside the module's status.
    """

    def __init__(
        self,
        workload: Workload,
        whereabouts: Whereabouts,
        premises: Premises,
        seat: Seat,
        host: HostFacts,
        told: Told,
        tasks: asyncio.TaskGroup,
        may_act: Callable[[], bool] = lambda: True,
        noted: Callable[[Noted], None] = lambda _: None,
    ) -> None:
        raise NotImplementedError

    @property
    def seat(self) -> Seat:
        """What it is connected to; what `reseat` gave counts from the next start on."""
        raise NotImplementedError

    @property
    def state(self) -> GuestState:
        """What it was doing when it was last heard of."""
        raise NotImplementedError

    @property
    def pid(self) -> int | None:
        """QEMU's pid while it runs."""
        raise NotImplementedError

    @property
    def monitor(self) -> Monitor:
        """QEMU's monitor, for moving and whatever else needs it. Raises VmUnreachable while there is none."""
        raise NotImplementedError

    def reseat(self, seat: Seat) -> None:
        """Give it another seat for its next start."""
        raise NotImplementedError

    async def start(self, name: str) -> None:
        """Start the emulator anew; RUNNING is told when the guest runs, or waits where its seat is `incoming`."""
        raise NotImplementedError

    async def adopt(self) -> dict[str, ModuleStatus]:
        """Take over what an earlier agent started."""
        raise NotImplementedError

    def watch_adopted(self) -> None:
        """Begin to tell of what was adopted: its end is told even when it came before."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Press the power button, wait `machine.stop_s`, quit, then kill; returns when nothing of it runs."""
        raise NotImplementedError

    def leave(self) -> None:
        """Let go of it as it runs, for the next agent to adopt."""
        raise NotImplementedError

    async def pause(self) -> None:
        """Stop the guest's processors. Raises VmFailed or VmUnreachable."""
        raise NotImplementedError

    async def resume(self) -> None:
        """Let the guest go on. Raises VmRefused where it is not ours to: a standby, or a guest that moved away."""
        raise NotImplementedError

    async def reset(self) -> None:
        """Reset the guest as by its button: what it had not written is lost. Raises VmFailed or VmUnreachable."""
        raise NotImplementedError

    async def screenshot(self) -> bytes:
        """What its display shows, as PNG. Raises VmFailed or VmUnreachable."""
        raise NotImplementedError
