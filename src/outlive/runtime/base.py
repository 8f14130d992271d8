"""What any runtime does for one workload at one generation on this host, and what programs get to know of it.

A runtime starts modules, watches them, and stops everything; whether and when is decided by the node machine, and what
must be in force before (guard, run lock, addresses) is seen to by the agent. A runtime's invariants: nothing is
started while anything of the same module may still run, and `stop` returns only when nothing runs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from outlive.cluster.heartbeat import ModuleStatus
from outlive.config import placeholders

Told = Callable[[str, ModuleStatus, str], None]
"""Takes a module's name, what it has become, and a sentence that says why."""

BASE_ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}
"""What every program finds in its environment: nothing of the agent's own, which differs from host to host."""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """What a program may know of where it runs, in its environment and for placeholders.

    data:      its data folder; None without one.
    addresses: its virtual IPs without prefix; the first is {address}.
    package:   where its package is installed; None without one.  variables: what is told of that besides.
    """

    host: str
    workload: str
    generation: int
    data: Path | None = None
    addresses: tuple[str, ...] = ()
    package: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)

    def _values(self) -> dict[str, str]:
        return {
            "host": self.host,
            "workload": self.workload,
            "generation": str(self.generation),
            "data": str(self.data) if self.data is not None else "",
            "address": self.addresses[0] if self.addresses else "",
            "package": str(self.package) if self.package is not None else "",
        }

    def filled(self, text: str) -> str:
        """Return `text` with its placeholders filled in."""
        return placeholders.filled(text, self._values())

    def environment(self, own: Mapping[str, str]) -> dict[str, str]:
        """Return a program's whole environment: the base, where it runs, and then its own."""
        about = {f"OUTLIVE_{name.upper()}": value for name, value in self._values().items() if value}
        return {
            **BASE_ENVIRONMENT,
            **self.variables,
            **about,
            **{name: self.filled(value) for name, value in own.items()},
        }


class Runtime(Protocol):
    """One workload at one generation on this host. Calls are made one at a time."""

    async def start(self, module: str) -> None:
        """Make sure that nothing of the module is left, and start it; what becomes of it is told.

        Returns once it was started or could not be; told are RUNNING when it is ready, and FAILED with a sentence.
        """
        ...

    async def adopt(self) -> dict[str, ModuleStatus]:
        """Take over what an earlier agent started, and watch it; modules that were never started are left out."""
        ...

    async def stop(self) -> None:
        """Stop every module in reverse order of starting. Returns when nothing of the workload runs."""
        ...
