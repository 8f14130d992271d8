"""Scenarios: a script that a person wrote, and the timeline that is expected of it beside it.

A script has one thing a line; `#` begins a comment:

    hosts a b c                          the cluster's hosts; each may have site=, cpus=, label=
    workload web modules=db,app cpus=1   what `apply` knows, and applied at 1 s unless it says apply=never
    package app@2.0.0 a                  a package that was pushed to a host before the run
    run 40 s                             when it ends
    timing claim_ttl_s=4                 to change the timing
    policy proof_of_end=fence            to change the cluster's policies
    fence power tries=2 hosts=a,b        a way to fence hosts, in order; with locks=yes by their run locks
    at 10 s: crash b for 20 s            a fault, as `faults` writes them

Everything in a scenario's world takes the middle of its range and all clocks are right, so that the timeline is the
same after any change that does not change a decision. The timeline has the faults, and what the machines recorded, in
tenths of a second.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from outlive.cluster.fence import FenceMethod
from outlive.cluster.host import Capacity, Host
from outlive.cluster.machine import LOCAL, MODULE, Disk, Machine
from outlive.cluster.policies import Policies, changed
from outlive.cluster.pushed import split
from outlive.cluster.timing import Timing
from outlive.cluster.workload import (
    Apart,
    Kind,
    Module,
    OnAfterLimit,
    OnIsolation,
    PlacementRules,
    Protection,
    RestorePolicy,
    UpgradePolicy,
    VirtualIP,
    Workload,
)
from outlive.errors import UsageInvalid

from .depot import use_of
from .faults import Fault, check
from .setup import DATASTORE, Delays, HostSetup, Setup, WorkloadSetup, steady
from .timeline import Entry
from .verb import UnknownVerb
from .world import Result, World

FAULT = re.compile(r"at ([0-9.]+) s: ([a-z-]+)((?: +[^ ]+)*?)(?: +for ([0-9.]+) s)?")
RUN = re.compile(r"([0-9.]+) s")
TIMING = Timing(retry_first_s=0.5, retry_most_s=4.0, exclude_s=20.0, stable_s=15.0)
UPGRADE = UpgradePolicy(healthy_within_s=10.0, watch_s=3.0)
CALM_AFTER_S = 1.0
BEGINS_S = 1.0
"""Until then the hosts of every scenario start, in the same way."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A script as values."""

    name: str
    setup: Setup
    faults: tuple[Fault, ...]


class BadScript(UsageInvalid):
    """A script that says something nobody can do; the sentence names the line."""

    id = "scenario.invalid"


def read(text: str, name: str = "scenario") -> Scenario:
    """Read a script. Raises BadScript, naming the line and what is wrong with it."""
    script = _Script(name)
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.partition("#")[0].strip()
        if line:
            try:
                script.take(line)
            except (ValueError, KeyError, TypeError, UsageInvalid) as error:
                raise BadScript(
                    f"Line {number} of {name} cannot be done: {line!r}.",
                    cause=str(error),
                    remedy="docs/simulator.md tells what a script may say",
                ) from error
    return script.whole()


class _Script:
    def __init__(self, name: str) -> None:
        self.name = name
        self.hosts: list[HostSetup] = []
        self.workloads: list[WorkloadSetup] = []
        self.faults: list[Fault] = []
        self.packages: list[tuple[str, str]] = []
        self.timing = TIMING
        self.policies = Policies()
        self.methods: list[FenceMethod] = []
        self.end_s = 60.0

    def take(self, line: str) -> None:
        if line.startswith("at "):
            self.faults.append(_fault(line))
            check(self.faults[-1], [each.host.name for each in self.hosts])
            return
        word, _, rest = line.partition(" ")
        takers: dict[str, Callable[[str], None]] = {
            "hosts": self._hosts,
            "host": self._host,
            "workload": self._workload,
            "package": self._package,
            "timing": self._timing,
            "policy": self._policy,
            "fence": self._fence,
            "run": self._run,
        }
        if word not in takers:
            raise ValueError(f"a line begins with 'at' or one of: {', '.join(takers)}")
        takers[word](rest)

    def _hosts(self, rest: str) -> None:
        for name in rest.split():
            self._host(name)

    def _host(self, rest: str) -> None:
        name, options = _options(rest, "site", "cpus", "label", "datastore")
        number = len(self.hosts)
        labels = dict([options["label"].split(":", 1)]) if "label" in options else {}
        host = Host(
            name=name,
            site=options.get("site", "here"),
            address=f"10.0.0.{number + 1}",
            port=7900,
            peer_port=7901,
            capacity=Capacity(float(options.get("cpus", "4")), 8192),
            labels=labels,
            datastores=() if options.get("datastore") == "none" else (DATASTORE,),
        )
        self.hosts.append(HostSetup(host, 1.0, 100.0 + number))

    def _workload(self, rest: str) -> None:
        name, options = _options(
            rest, "modules", "cpus", "apply", "attempts", "isolation", "sites", "hosts", "priority", "data", "label",
            "package", "after", "after-limit", "after-then", "kind", "apart", "with", "apart-from", "prefer-with",
            "prefer-apart-from", "prefer-sites", "group",
        )  # fmt: skip
        kind = Kind.VM if "kind" in options else Kind.SERVICE
        names = [MODULE] if kind is Kind.VM else options.get("modules", "main").split(",")
        restore = RestorePolicy(attempts=int(options.get("attempts", "3")))
        modules = tuple(
            Module(module, (f"/bin/{module}",), restore=restore, after=tuple(names[:number][-1:]), stop_grace_s=2.0)
            for number, module in enumerate(names)
        )

        def named(option: str) -> tuple[str, ...]:
            return tuple(options[option].split(",")) if option in options else ()

        rules = PlacementRules(
            sites=named("sites"),
            hosts=named("hosts"),
            labels=dict([options["label"].split(":", 1)]) if "label" in options else {},
            prefer_sites=named("prefer-sites"),
            apart=Apart(options.get("apart", "host")),
            together_with=named("with"),
            apart_from=named("apart-from"),
            prefer_together_with=named("prefer-with"),
            prefer_apart_from=named("prefer-apart-from"),
            group=options.get("group", ""),
        )
        protection = Protection(options.get("kind", "cold"))
        workload = Workload(
            name=name,
            modules=modules,
            kind=kind,
            protection=protection,
            machine=_machine(protection) if kind is Kind.VM else None,
            package=use_of(options["package"]) if "package" in options else None,
            upgrade=UPGRADE,
            after=named("after"),
            after_limit_s=float(options.get("after-limit", "120")),
            on_after_limit=OnAfterLimit(options.get("after-then", "wait")),
            priority=int(options.get("priority", "100")),
            on_isolation=OnIsolation(options["isolation"]) if "isolation" in options else None,
            resources=Capacity(float(options.get("cpus", "1")), 512),
            placement=rules,
            virtual_ips=() if kind is Kind.VM else (VirtualIP(f"10.0.9.{len(self.workloads) + 1}/24"),),
            data_on=None if kind is Kind.VM or options.get("data") == "none" else DATASTORE,
        )
        applied = options.get("apply", "1")
        self.workloads.append(WorkloadSetup(workload, None if applied == "never" else float(applied)))

    def _package(self, rest: str) -> None:
        key, host = rest.split()
        split(key)
        self.packages.append((key, host))

    def _timing(self, rest: str) -> None:
        for word in rest.split():
            name, _, value = word.partition("=")
            stands = getattr(self.timing, name, None)
            if not isinstance(stands, int | float):
                raise ValueError(f"there is no timing {name!r}")
            changes: dict[str, Any] = {name: int(value) if isinstance(stands, int) else float(value)}
            self.timing = replace(self.timing, **changes)

    def _policy(self, rest: str) -> None:
        words = dict(word.partition("=")[::2] for word in rest.split())
        try:
            self.policies = changed(self.policies, words)
        except UsageInvalid as refused:
            raise ValueError(f"{refused.sentence} {refused.cause}") from refused

    def _fence(self, rest: str) -> None:
        name, options = _options(rest, "hosts", "tries", "locks")
        hosts = frozenset(options["hosts"].split(",")) if "hosts" in options else None
        self.methods.append(FenceMethod(name, hosts, options.get("locks") == "yes", int(options.get("tries", "1"))))

    def _run(self, rest: str) -> None:
        found = RUN.fullmatch(rest.strip())
        if found is None:
            raise ValueError("say how long: run 40 s")
        self.end_s = float(found[1])

    def whole(self) -> Scenario:
        if not self.hosts:
            raise BadScript(f"{self.name} has no hosts.", remedy="begin with a line such as: hosts a b c")
        over_s = max((fault.at_s + (fault.for_s or 0.0) for fault in self.faults), default=0.0)
        setup = Setup(
            hosts=tuple(self.hosts),
            workloads=tuple(self.workloads),
            timing=self.timing,
            delays=steady(Delays()),
            calm_at_s=max(over_s + CALM_AFTER_S, self.end_s),
            end_s=self.end_s,
            policies=self.policies,
            methods=tuple(self.methods),
            packages=tuple(self.packages),
        )
        return Scenario(self.name, setup, tuple(self.faults))


def _fault(line: str) -> Fault:
    found = FAULT.fullmatch(line)
    if found is None:
        raise UnknownVerb("say when and what, and for how long if it ends: at 5 s: crash b for 20 s")
    at_s, verb, args, for_s = found.groups()
    return Fault(float(at_s), verb, tuple(args.split()), None if for_s is None else float(for_s))


def _machine(protection: Protection) -> Machine:
    on = LOCAL if protection is Protection.HOT else DATASTORE
    return Machine(disks=(Disk("root", on=on, size_mib=64),))


def _options(rest: str, *known: str) -> tuple[str, dict[str, str]]:
    name, *words = rest.split()
    options: dict[str, str] = {}
    for word in words:
        option, equals, value = word.partition("=")
        if not equals or option not in known:
            raise ValueError(f"{word!r} is none of: {', '.join(f'{each}=' for each in known)}")
        options[option] = value
    return name, options


def run(scenario: Scenario, seed: int = 0) -> Result:
    """Run a scenario; the seed decides only what its faults leave to chance."""
    return World(scenario.setup, scenario.faults, Random(seed)).run()


def timeline(result: Result) -> str:
    """The run as the expected timeline shows it: short, and the same for the same decisions."""
    return "".join(f"{_line(entry)}\n" for entry in result.timeline.entries if _matters(entry))


def _matters(entry: Entry) -> bool:
    if entry.record is None:
        return True
    if entry.at_s < BEGINS_S:
        return entry.record.kind == "leader.elected"
    return entry.record.kind not in ("module.running", "workload.prepared")


def _line(entry: Entry) -> str:
    if entry.record is None:
        return f"{entry.at_s:6.1f}  -- {entry.text}"
    record = entry.record
    about = [record.workload, record.module, record.host]
    number = f"@{record.generation}" if record.workload and record.generation else ""
    told = " ".join(each for each in about if each)
    return f"{entry.at_s:6.1f}  {record.by:<2} {record.kind:<20} {told}{number}".rstrip()


def expected_beside(script: Path) -> Path:
    """Where the expected timeline of a script is."""
    return script.with_suffix(".expected")
