"""Who acts for which workload, in real (simulated) time, and every start of a module.

A paused host does not act while it is paused. The ledger judges nothing; the checkers listen to it.
"""

from collections.abc import Callable

from .agenda import Agenda


class Ledger:
    """acting: workload → host → generation, in the order in which they began."""

    def __init__(self, agenda: Agenda) -> None:
        self._agenda = agenda
        self.acting: dict[str, dict[str, int]] = {}
        self._paused: dict[str, dict[str, int]] = {}
        self.on_begin: list[Callable[[str, str, int], None]] = []
        self.on_start: list[Callable[[str, str, int, str], None]] = []
        self.on_end: list[Callable[[str, str, int], None]] = []

    def begin(self, host: str, workload: str, generation: int) -> None:
        """A host begins to act."""
        self.acting.setdefault(workload, {})[host] = generation
        for listener in self.on_begin:
            listener(host, workload, generation)

    def end(self, host: str, workload: str, generation: int) -> None:
        """A host acts no longer."""
        self.acting.get(workload, {}).pop(host, None)
        self._paused.get(host, {}).pop(workload, None)
        for listener in self.on_end:
            listener(host, workload, generation)

    def started(self, host: str, workload: str, generation: int, module: str) -> None:
        """A module's process is started."""
        for listener in self.on_start:
            listener(host, workload, generation, module)

    def pause(self, host: str) -> None:
        """The host stands still, and what acts on it too."""
        paused = self._paused.setdefault(host, {})
        for workload, hosts in self.acting.items():
            if host in hosts:
                paused[workload] = hosts.pop(host)

    def resume(self, host: str) -> None:
        """The host goes on; what its guard has left acting acts again."""
        for workload, generation in list(self._paused.pop(host, {}).items()):
            self.acting.setdefault(workload, {})[host] = generation
            for listener in self.on_begin:
                listener(host, workload, generation)
