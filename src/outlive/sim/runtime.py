"""What runs on a host: workloads made ready, their modules, and how these start, crash, hang and stop.

Programs outlive their agent (runners do, in the real world) and die with their host or by its guard. `tell` carries
what the agent would notice; with no agent it is noticed at the next adoption. All of it
stands still while the host does (its gate is closed). A workload *acts* from when its addresses
are put up until everything of it is gone; the ledger of that is what `never_two` reads.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import TYPE_CHECKING, Any

from outlive.cluster import events as ev
from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.workload import Kind, Workload

from .datastore import Datastore, Grip
from .gate import Gate
from .guard import Guard
from .ledger import Ledger
from .setup import Delays, Range

if TYPE_CHECKING:
    from .depot import SimDepot
    from .guests import Guests


class Life(Enum):
    """A module's process, as it truly is."""

    STARTING = "starting"
    RUNNING = "running"
    HUNG = "hung"
    GONE = "gone"


@dataclass(slots=True)
class Process:
    """A module's process. turn: grows with each change, so that what was due for an earlier one is dropped."""

    life: Life = Life.GONE
    turn: int = 0


@dataclass(slots=True)
class Program:
    """A workload on this host at one generation, prepared wholly (acts), partly, or being torn down."""

    workload: Workload
    generation: int
    processes: dict[str, Process] = field(default_factory=dict)
    locked: bool = False
    acts: bool = False
    task: int = 0
    lock_until: float = 0.0


@dataclass(slots=True)
class Ills:
    """What is wrong with workloads, everywhere or on one host: (workload, host or '') → how many faults say so.

    fetches_fail, installs_fail, versions_bad: the same of packages, by NAME@VERSION.
    """

    starts_fail: dict[tuple[str, str], int] = field(default_factory=dict)
    prepares_fail: dict[tuple[str, str], int] = field(default_factory=dict)
    stops_hang: dict[tuple[str, str], int] = field(default_factory=dict)
    fetches_fail: dict[tuple[str, str], int] = field(default_factory=dict)
    installs_fail: dict[tuple[str, str], int] = field(default_factory=dict)
    versions_bad: dict[tuple[str, str], int] = field(default_factory=dict)

    @staticmethod
    def has(ills: dict[tuple[str, str], int], workload: str, host: str) -> bool:
        """Whether a workload has that ill on that host."""
        return bool(ills.get((workload, "")) or ills.get((workload, host)))


class Runtime:
    """tell: told (event class, fields) of what the agent notices. guests: the host's machines. depot: its packages."""

    def __init__(
        self,
        host: str,
        gate: Gate,
        random: Random,
        delays: Delays,
        guard: Guard,
        datastore: Datastore,
        ledger: Ledger,
        ills: Ills,
        tell: Callable[..., None],
        guests: "Guests",
        depot: "SimDepot",
    ) -> None:
        self.host = host
        self._guests = guests
        self._depot = depot
        self.programs: dict[str, Program] = {}
        self._gate = gate
        self._random = random
        self._delays = delays
        self._guard = guard
        self._datastore = datastore
        self._ledger = ledger
        self._ills = ills
        self._tell = tell
        self._tasks = 0

    def _draw(self, between: Range) -> float:
        return between[0] + (between[1] - between[0]) * self._random.random()

    def _task(self, program: Program) -> int:
        self._tasks += 1
        program.task = self._tasks
        return self._tasks

    def _current(self, program: Program, task: int) -> bool:
        return program.task == task and self.programs.get(program.workload.name) is program

    # Making ready.

    def prepare(self, workload: Workload, generation: int) -> None:
        """Run lock, data folder, addresses → Prepared or PrepareFailed."""
        name = workload.name
        if name in self.programs or name in self._guests.followers:
            self._fail(name, generation, "runtime", "something of it is still here")
            return
        program = Program(workload, generation, lock_until=self._gate.now + self._delays.lock_patience_s)
        self.programs[name] = program
        task = self._task(program)

        def failed(why: str) -> None:
            if self._current(program, task):
                self._undo(program, "package", why)

        self._depot.make_ready(workload, generation, lambda: self._packaged(program, task), failed)

    def _packaged(self, program: Program, task: int) -> None:
        if self._current(program, task):
            program.lock_until = self._gate.now + self._delays.lock_patience_s
            delay_s = self._draw(self._delays.prepare_s)
            self._gate.after(delay_s / 2, self._lock, program, task, delay_s / 2)

    def _lock(self, program: Program, task: int, rest_s: float) -> None:
        if not self._current(program, task):
            return
        name, generation = program.workload.name, program.generation
        if Ills.has(self._ills.prepares_fail, name, self.host):
            self._undo(program, "address", "another host answers for it")
            return
        if program.workload.data_on is not None:
            grip = self._datastore.take(self.host, name, generation)
            if grip in (Grip.HELD, Grip.AWAY) and self._gate.now < program.lock_until:
                self._gate.after(0.2, self._lock, program, task, rest_s)
                return
            if grip is not Grip.TAKEN:
                self._undo(program, "lock", grip.value)
                return
            program.locked = True
        self._gate.after(rest_s, self._address, program, task)

    def _address(self, program: Program, task: int) -> None:
        if not self._current(program, task):
            return
        if not self._guard.allows():
            self._undo(program, "guard", "the claim's deadline has passed")
            return
        name, generation = program.workload.name, program.generation
        program.acts = True
        self._ledger.begin(self.host, name, generation)
        self._tell(ev.Prepared, workload=name, generation=generation)

    def _undo(self, program: Program, step: str, reason: str) -> None:
        self._remove(program)
        self._fail(program.workload.name, program.generation, step, reason)

    def _fail(self, workload: str, generation: int, step: str, reason: str) -> None:
        self._tell(ev.PrepareFailed, workload=workload, generation=generation, step=step, reason=reason)

    # Modules.

    def start(self, workload: str, generation: int, module: str) -> None:
        """Start a module anew → ModuleChanged."""
        program = self.programs.get(workload)
        if program is None or program.generation != generation or not program.acts:
            self._tell(
                ev.ModuleChanged,
                workload=workload,
                generation=generation,
                module=module,
                status=ModuleStatus.FAILED,
                reason="it is not ready to act here",
            )
            return
        process = program.processes.setdefault(module, Process())
        self._guests.ends(workload)
        process.life = Life.STARTING
        process.turn += 1
        self._ledger.started(self.host, workload, generation, module)
        self._gate.after(self._draw(self._delays.module_start_s), self._started, program, module, process.turn)

    def _started(self, program: Program, module: str, turn: int) -> None:
        process = program.processes[module]
        if process.turn != turn or process.life is not Life.STARTING:
            return
        package = program.workload.package
        bad = package is not None and Ills.has(self._ills.versions_bad, package.key, self.host)
        if bad or Ills.has(self._ills.starts_fail, program.workload.name, self.host):
            self._gone(program, module, "it exited with status 1")
            return
        process.life = Life.RUNNING
        if program.workload.kind is Kind.VM:
            self._guests.begins(program)
        self._say(program, module, ModuleStatus.RUNNING, "")

    def adopted(self, workload: Workload, generation: int) -> bool:
        """What followed here has become a program that acts; False when that may not be."""
        if workload.name in self.programs or not self._guard.allows():
            return False
        processes = {module.name: Process(Life.RUNNING) for module in workload.modules}
        self.programs[workload.name] = Program(workload, generation, processes, acts=True)
        self._ledger.begin(self.host, workload.name, generation)
        return True

    def _gone(self, program: Program, module: str, reason: str) -> None:
        self._guests.ends(program.workload.name)
        process = program.processes[module]
        process.life = Life.GONE
        process.turn += 1
        self._say(program, module, ModuleStatus.FAILED, reason)

    def _say(self, program: Program, module: str, status: ModuleStatus, reason: str) -> None:
        self._tell(
            ev.ModuleChanged,
            workload=program.workload.name,
            generation=program.generation,
            module=module,
            status=status,
            reason=reason,
        )

    def crash(self, workload: str, module: str) -> None:
        """A module's process ends by itself."""
        program = self.programs.get(workload)
        process = program.processes.get(module) if program else None
        if program is None or process is None or process.life is Life.GONE:
            return
        self._guests.ends(workload)
        process.life = Life.GONE
        process.turn += 1
        delay_s = self._draw(self._delays.exit_noticed_s)
        self._gate.after(delay_s, self._notice, program, module, process.turn, "it was killed by signal 11")

    def hang(self, workload: str, module: str) -> None:
        """A module goes on without doing its work; its health checks will find out."""
        program = self.programs.get(workload)
        process = program.processes.get(module) if program else None
        if program is None or process is None or process.life is not Life.RUNNING:
            return
        process.life = Life.HUNG
        process.turn += 1
        self._watch_hung(program, module, process)

    def _watch_hung(self, program: Program, module: str, process: Process) -> None:
        delay_s = self._draw(self._delays.hang_noticed_s)
        self._gate.after(delay_s, self._notice, program, module, process.turn, "its health check failed")

    def _notice(self, program: Program, module: str, turn: int, reason: str) -> None:
        if program.processes[module].turn == turn:
            self._gone(program, module, reason)

    # The end.

    def tear_down(self, workload: str, generation: int) -> None:
        """Stop everything of it, in order → TornDown, always."""
        self._guests.drops(workload)
        program = self.programs.get(workload)
        if program is None or program.generation != generation:
            self._gate.after(0.001, self._tell_torn_down, workload, generation)
            return
        delay_s = self._draw(self._delays.module_stop_s)
        if Ills.has(self._ills.stops_hang, workload, self.host):
            delay_s += max((module.stop_grace_s for module in program.workload.modules), default=0.0)
        self._gate.after(delay_s, self._torn_down, program, self._task(program))

    def _torn_down(self, program: Program, task: int) -> None:
        if self._current(program, task):
            self._remove(program)
            self._tell_torn_down(program.workload.name, program.generation)

    def _tell_torn_down(self, workload: str, generation: int) -> None:
        self._tell(ev.TornDown, workload=workload, generation=generation)

    def _silence(self, program: Program, *, late_lock: bool = False) -> None:
        """Nothing of it runs or has an address any more."""
        self._guests.ends(program.workload.name)
        for process in program.processes.values():
            process.life = Life.GONE
            process.turn += 1
        if program.acts:
            program.acts = False
            self._ledger.end(self.host, program.workload.name, program.generation)
        if program.locked:
            program.locked = False
            self._datastore.release(self.host, program.workload.name, program.generation, late=late_lock)

    def _remove(self, program: Program) -> None:
        self._silence(program)
        self.programs.pop(program.workload.name, None)

    def forget(self, workload: str, generation: int) -> None:
        """Nothing is left of what acted at that generation, if anything did."""
        program = self.programs.get(workload)
        if program is not None and program.generation == generation:
            self._remove(program)

    def guard_fires(self) -> None:
        """The guard kills all that acts; the agent learns of it, and of its dead modules, in any order."""
        self._guests.guard_fires()
        for program in list(self.programs.values()):
            said: list[tuple[Any, dict[str, Any]]] = [
                (ev.GuardFired, {"workload": program.workload.name, "generation": program.generation})
            ]
            for name, process in program.processes.items():
                if process.life is not Life.GONE:
                    about = {"workload": program.workload.name, "generation": program.generation, "module": name}
                    said.append((ev.ModuleChanged, about | {"status": ModuleStatus.FAILED, "reason": "it was killed"}))
            self._silence(program)
            self._random.shuffle(said)
            for kind, fields in said:
                self._tell(kind, **fields)

    def power_cut(self) -> None:
        """The host is gone, and with it all that ran."""
        self._guests.power_cut()
        for program in list(self.programs.values()):
            self._silence(program, late_lock=True)
        self.programs.clear()

    def agent_gone(self) -> None:
        """What the agent was doing stays half done; what runs goes on."""
        for program in self.programs.values():
            self._task(program)

    def adopt(self, wanted: dict[str, int]) -> dict[str, dict[str, ModuleStatus]]:
        """Clear away all but the wanted workloads (name → generation) that still act; their modules' statuses.

        Modules that were never started have none.
        """
        alive: dict[str, dict[str, ModuleStatus]] = {}
        for name, program in list(self.programs.items()):
            living = any(process.life is not Life.GONE for process in program.processes.values())
            if not program.acts or not living or wanted.get(name) != program.generation:
                self._remove(program)
                continue
            alive[name] = {}
            for module, process in program.processes.items():
                alive[name][module] = (
                    ModuleStatus.FAILED if process.life is Life.GONE
                    else ModuleStatus.RESTORING if process.life is Life.STARTING
                    else ModuleStatus.RUNNING
                )  # fmt: skip
                if process.life is Life.HUNG:
                    self._watch_hung(program, module, process)
        return alive
