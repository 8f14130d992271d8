"""A world and its faults, drawn from one seed.

What is drawn: sites and sizes of hosts, clock rates up to the allowed drift (often at its ends), workloads of all
shapes, how fast things are, and a schedule of faults that ends before the calm. Waiting times that only cost
simulated time (back-off, exclusion) are shortened, and most runs tick half as often; all on which safety rests is as in
the default timing.
"""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from outlive.cluster.fence import EndProof, FenceMethod
from outlive.cluster.host import Capacity, Host
from outlive.cluster.machine import LOCAL, MODULE, Disk, KernelBoot, Machine
from outlive.cluster.policies import Policies
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
    VirtualIP,
    Workload,
)

from . import chance_packages
from .faults import Fault
from .setup import DATASTORE, Delays, HostSetup, Setup, WorkloadSetup

SETTLE_S = 6.0
FAULTS_S = 50.0
CALM_S = 36.0
TIMING = Timing(retry_first_s=0.5, retry_most_s=4.0, exclude_s=8.0, stable_s=15.0, verify_s=3.0)
COARSE_TIMING = replace(TIMING, tick_s=0.2, heartbeat_s=0.4)
"""Half the work for the same claims and verdicts: most runs take it, so that there can be more of them."""

Drawn = tuple[Setup, tuple[Fault, ...]]


VERBS = ("apply", "change", "change", "stop", "start", "remove", "migrate", "migrate", "failover", "failover")


def draw(random: Random, hosts: int = 5, faults_s: float = FAULTS_S, kinds: tuple[str, ...] | None = None) -> Drawn:
    """A world of so many hosts, and what goes wrong in it during `faults_s` seconds, from a seeded generator.

    kinds: names of DRAFTS, the only kinds of faults there shall be; None: the generator chooses.
    """
    timing = random.choice((TIMING, COARSE_TIMING, COARSE_TIMING))
    names = [_name(number) for number in range(hosts)]
    calm_at_s = SETTLE_S + faults_s
    workloads = [_workload(random, number, names) for number in range(random.randint(2, 5))]
    setup = Setup(
        hosts=tuple(_host(random, name, number, timing) for number, name in enumerate(names)),
        workloads=tuple(_related(random, number, each) for number, each in enumerate(workloads)),
        timing=timing,
        delays=_delays(random),
        calm_at_s=calm_at_s,
        end_s=calm_at_s + CALM_S,
        policies=_policies(random),
    )
    setup = chance_packages.packaged(random, setup, names)
    faults = _faults(random, setup, names, kinds)
    setup = replace(setup, **_fencing(random, setup.policies))
    return (_without_datastore(setup) if random.random() < 0.1 else setup), faults


def _without_datastore(setup: Setup) -> Setup:
    """The same world, but that there is nothing which hosts share: they know of each other by the network alone."""

    def bare(each: WorkloadSetup) -> WorkloadSetup:
        workload, machine = replace(each.workload, data_on=None), each.workload.machine
        if machine is not None and any(disk.on == DATASTORE for disk in machine.disks):
            workload = replace(workload, machine=Machine(boot=KernelBoot("/boot/vmlinuz")))
        return replace(each, workload=workload)

    hosts = tuple(replace(each, host=replace(each.host, datastores=())) for each in setup.hosts)
    return replace(setup, hosts=hosts, workloads=tuple(bare(each) for each in setup.workloads))


def _fencing(random: Random, policies: Policies) -> dict[str, Any]:
    """In some worlds a silent host is called ended only once a fence has proven it."""
    if random.random() < 0.7:
        return {}
    power = FenceMethod("power", tries=random.choice((1, 2)))
    others = random.choice(((), (FenceMethod("socket"),), (FenceMethod("locks", run_locks=True),)))
    methods = random.choice(((power, *others), (*others, power)))
    return {"policies": replace(policies, proof_of_end=EndProof.FENCE), "methods": methods}


def _policies(random: Random) -> Policies:
    """Waits that only cost simulated time are shortened; how much may begin at once is sometimes scarce."""
    return Policies(
        restarts_per_host=random.choice((1, 2, 16)),
        moves_per_host=random.choice((1, 1, 4)),
        retry_minutes=(0.0, 1 / 60, 2 / 60, 4 / 60),
        begin_within_s=6.0,
        host_deaths=random.choice((0, 2, 3)),
        host_deaths_minutes=random.choice((0.1, 0.5)),
        on_isolation=random.choice((OnIsolation.STOP, OnIsolation.LEAVE)),
    )


def _name(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else f"host-{number}"


def _host(random: Random, name: str, number: int, timing: Timing) -> HostSetup:
    # The square root keeps the ratio of any two rates within the drift that is allowed.
    most = (1.0 + timing.drift_ratio) ** 0.5
    rate = random.choice((1.0, most, 1.0 / most, random.uniform(1.0 / most, most)))
    cpus = random.choice((2.0, 4.0, 4.0, 8.0))
    host = Host(
        name=name,
        site=random.choice(("north", "south")),
        address=f"10.0.0.{number + 1}",
        port=7900,
        peer_port=7901,
        capacity=Capacity(cpus, 8192),
        labels={"disk": random.choice(("fast", "fast", "slow"))},
        datastores=(DATASTORE,),
    )
    return HostSetup(host, rate, random.choice((10.0, 1000.0, 1_000_000.0)))


def _workload(random: Random, number: int, hosts: list[str]) -> WorkloadSetup:
    kind = random.choice((Kind.SERVICE, Kind.SERVICE, Kind.VM))
    if kind is Kind.VM:
        return _machine(random, number, hosts)
    modules: list[Module] = []
    for name in ("db", "app", "web")[: random.choice((1, 1, 2, 3))]:
        restore = RestorePolicy(random.choice((1, 2, 3)), 60.0, random.choice((0.2, 0.5)), 4.0)
        after = (modules[-1].name,) if modules and random.random() < 0.7 else ()
        modules.append(Module(name, (f"/bin/{name}",), restore=restore, after=after, stop_grace_s=2.0))
    rules = _rules(random, hosts)
    workload = Workload(
        name=f"w{number}",
        modules=tuple(modules),
        priority=random.choice((50, 100, 100, 200)),
        on_isolation=random.choice((OnIsolation.STOP, None, OnIsolation.LEAVE)),
        resources=Capacity(random.choice((0.5, 1.0, 2.0, 3.0)), 512),
        placement=rules,
        virtual_ips=(VirtualIP(f"10.0.9.{number + 1}/24"),),
        data_on=random.choice((DATASTORE, None)),
        after=(f"w{random.randrange(number)}",) if number and random.random() < 0.1 else (),
    )
    return WorkloadSetup(workload, _applied_at(random, number), broken=number > 0 and random.random() < 0.06)


def _rules(random: Random, hosts: list[str]) -> PlacementRules:
    return random.choice(
        (
            PlacementRules(),
            PlacementRules(),
            PlacementRules(),
            PlacementRules(labels={"disk": "fast"}),
            PlacementRules(sites=("north",)),
            PlacementRules(hosts=tuple(sorted(random.sample(hosts, min(3, len(hosts)))))),
        )
    )


def _related(random: Random, number: int, each: WorkloadSetup) -> WorkloadSetup:
    """The same workload, in a quarter of all cases with rules about one before it: no circle can come of that."""
    if not number or random.random() >= 0.25:
        return each
    other = (f"w{random.randrange(number)}",)
    rule = random.choice(("together_with", "apart_from", "apart_from", "prefer_together_with", "prefer_apart_from"))
    rules: dict[str, Any] = {rule: other}
    if rule == "apart_from" and each.workload.kind is Kind.SERVICE:
        rules["apart"] = random.choice((Apart.HOST, Apart.HOST, Apart.SITE))
    placement = replace(each.workload.placement, **rules)
    limit_s, then = random.choice(((120.0, OnAfterLimit.WAIT), (5.0, OnAfterLimit.WAIT), (5.0, OnAfterLimit.START)))
    workload = replace(each.workload, placement=placement, after_limit_s=limit_s, on_after_limit=then)
    return replace(each, workload=workload)


def _applied_at(random: Random, number: int) -> float | None:
    return random.choice((0.5, 0.5, random.uniform(0.0, 4.0), None if number else 0.5))


def _machine(random: Random, number: int, hosts: list[str]) -> WorkloadSetup:
    """A virtual machine: mostly a hot one, sometimes without a disk, so that nothing binds it to a host."""
    protection = random.choice((Protection.HOT, Protection.HOT, Protection.WARM))
    on = LOCAL if protection is Protection.HOT else DATASTORE
    keeps = protection is Protection.WARM or random.random() < 0.7
    disks = (Disk("root", on=on, size_mib=64),) if keeps else ()
    rules = _rules(random, hosts)
    if protection is Protection.HOT:
        # A file that leaves no room for a standby is refused.
        rules = rules if len(rules.hosts) != 1 else PlacementRules()
        rules = replace(
            rules, apart=random.choice((Apart.HOST, Apart.HOST, Apart.SITE)) if not rules.sites else Apart.HOST
        )
    workload = Workload(
        name=f"w{number}",
        modules=(
            Module(MODULE, (), restore=RestorePolicy(random.choice((1, 2, 3)), 60.0, 0.2, 4.0), stop_grace_s=2.0),
        ),
        kind=Kind.VM,
        protection=protection,
        priority=random.choice((50, 100, 100, 200)),
        on_isolation=random.choice((OnIsolation.STOP, None)),
        resources=Capacity(random.choice((0.5, 1.0, 2.0)), 512),
        placement=replace(rules, prefer_sites=random.choice(((), ("south",)))),
        machine=Machine(disks=disks, boot=None if disks else KernelBoot("/boot/vmlinuz")),
    )
    return WorkloadSetup(workload, _applied_at(random, number))


def _delays(random: Random) -> Delays:
    delays = Delays(
        network_loss=random.choice((0.0, 0.0, 0.01, 0.02)),
        store_rate=random.choice((1.0, 1.01, 1 / 1.01)),
        lease_late_s=random.choice(((0.0, 0.0), (0.0, 0.5))),
    )
    quick = replace(
        delays, network_s=(0.0001, 0.0005), store_s=(0.0002, 0.002), watch_s=(0.0002, 0.002),
        slot_write_s=(0.001, 0.01), prepare_s=(0.001, 0.02), module_stop_s=(0.01, 2.0),
    )  # fmt: skip
    slow = replace(
        delays, network_s=(0.005, 0.05), store_s=(0.01, 0.08), watch_s=(0.01, 0.2), prepare_s=(0.2, 1.5),
        module_start_s=(0.3, 2.5), module_stop_s=(0.1, 1.2),
    )  # fmt: skip
    return random.choice((delays, delays, quick, slow))


# Faults: each draws one, or several that belong together, that begin at a moment.

Draft = Callable[[Random, float, list[str], list[WorkloadSetup]], list[Fault]]


def _some(random: Random, names: list[str]) -> str:
    return random.choice(names)


def _groups(random: Random, names: list[str]) -> tuple[str, str]:
    mixed = random.sample(names, len(names))
    cut = random.randint(1, max(1, len(mixed) - 1))
    return "+".join(sorted(mixed[:cut])), "+".join(sorted(mixed[cut:]) or mixed[:1])


def _short(random: Random) -> float:
    return random.choice((random.uniform(0.1, 3.0), random.uniform(1.0, 6.0), random.uniform(4.0, 15.0)))


def _of_host(verb: str, least_s: float = 0.0) -> Draft:
    def fault(random: Random, at_s: float, hosts: list[str], _: list[WorkloadSetup]) -> list[Fault]:
        return [Fault(at_s, verb, (_some(random, hosts),), max(least_s, _short(random)))]

    return fault


def _of_all(verb: str, *choices: str) -> Draft:
    def fault(random: Random, at_s: float, _: list[str], __: list[WorkloadSetup]) -> list[Fault]:
        args = (random.choice(choices),) if choices else ()
        return [Fault(at_s, verb, args, _short(random))]

    return fault


def _partition(random: Random, at_s: float, hosts: list[str], _: list[WorkloadSetup]) -> list[Fault]:
    one, other = _groups(random, hosts)
    verb = random.choice(("cut", "cut", "cut-oneway"))
    cut = Fault(at_s, verb, (one, other), _short(random))
    if random.random() < 0.5:
        return [cut]
    # The store is with the other side.
    away = [Fault(at_s, "store-away", (name,), cut.for_s) for name in one.split("+")]
    if random.random() < 0.5:
        away += [Fault(at_s, "datastore-away", (name,), cut.for_s) for name in one.split("+")]
    return [cut, *away]


def _two_crash(random: Random, at_s: float, hosts: list[str], _: list[WorkloadSetup]) -> list[Fault]:
    return [
        Fault(at_s + random.uniform(0.0, 1.0), "crash", (name,), _short(random))
        for name in random.sample(hosts, min(2, len(hosts)))
    ]


def _midway(random: Random, at_s: float, hosts: list[str], _: list[WorkloadSetup]) -> list[Fault]:
    return [Fault(at_s, "kill-agent-midway", (_some(random, hosts), str(random.randint(0, 40))))]


def _flapping(random: Random, at_s: float, hosts: list[str], _: list[WorkloadSetup]) -> list[Fault]:
    verb = random.choice(("isolate", "kill-agent", "store-away", "unplug", "hang-agent", "pause"))
    host, every_s = _some(random, hosts), random.uniform(0.5, 3.0)
    return [Fault(at_s + turn * every_s, verb, (host,), every_s * 0.6) for turn in range(random.randint(3, 6))]


def _stale(random: Random, at_s: float, hosts: list[str], _: list[WorkloadSetup]) -> list[Fault]:
    age = random.choice(("0.5", "1.5", "2.5", "5"))
    return [Fault(at_s, "datastore-stale", (_some(random, hosts), age), _short(random))]


def _of_module(verb: str) -> Draft:
    def fault(random: Random, at_s: float, _: list[str], workloads: list[WorkloadSetup]) -> list[Fault]:
        workload = random.choice(workloads).workload
        module = random.choice(workload.modules).name
        times = random.choice((1, 1, 1, 4))
        return [Fault(at_s + turn * 1.5, verb, (workload.name, module)) for turn in range(times)]

    return fault


def _of_workload(verb: str) -> Draft:
    def fault(random: Random, at_s: float, hosts: list[str], workloads: list[WorkloadSetup]) -> list[Fault]:
        name = random.choice(workloads).workload.name
        args = (name,) if random.random() < 0.4 else (name, _some(random, hosts))
        return [Fault(at_s, verb, args, _short(random))]

    return fault


def _asked(random: Random, at_s: float, hosts: list[str], workloads: list[WorkloadSetup]) -> list[Fault]:
    name = random.choice(workloads).workload.name
    verb = random.choice(
        (
            "apply",
            "change",
            "change",
            "stop",
            "start",
            "remove",
            "migrate",
            "migrate",
            "failover",
            "failover",
            "checkpoint",
            "resume",
        )
    )
    if verb in ("migrate", "failover") and random.random() < 0.2:
        later_s = random.choice((0.1, 1.0, 3.0)) * random.random()
        return [Fault(at_s, verb, (name,)), Fault(at_s + later_s, "cancel", (name,))]
    if verb in ("checkpoint", "resume"):
        return [Fault(at_s, verb, (name,))]
    if verb in ("migrate", "failover"):
        return [Fault(at_s, verb, (name,) if random.random() < 0.5 else (name, _some(random, hosts)))]
    faults = [Fault(at_s, verb, (name,))]
    if verb in ("stop", "remove") and random.random() < 0.7:
        again = "start" if verb == "stop" else "apply"
        faults.append(Fault(at_s + random.choice((0.01, 0.2, 2.0)) * random.random(), again, (name,)))
    return faults


def _by_hand(random: Random, at_s: float, hosts: list[str], workloads: list[WorkloadSetup]) -> list[Fault]:
    name = random.choice(workloads).workload.name
    host = _some(random, hosts)
    key = random.choice(
        (f"placements/{name}", f"placements/{name}", f"workloads/{name}", f"reports/{name}", f"claims/{host}",
         f"verdicts/{host}", f"fences/{host}", "leader")
    )  # fmt: skip
    verb = "garble" if key.startswith("workloads/") else random.choice(("garble", "delete"))
    return [Fault(at_s, verb, (key,))]


def _of_maintenance(random: Random, at_s: float, hosts: list[str], _: list[WorkloadSetup]) -> list[Fault]:
    """A host is emptied for a while; sometimes another one fails meanwhile, or is emptied next."""
    host, for_s = _some(random, hosts), 1.0 + _short(random)
    how = random.choice(((), (), ("force",), ("back",), ("force+back",)))
    faults = [Fault(at_s, "maintenance", (host, *how), for_s)]
    if random.random() < 0.3:
        verb = random.choice(("crash", "kill-agent", "isolate", "store-away", "maintenance"))
        faults.append(Fault(at_s + random.uniform(0.0, 3.0), verb, (_some(random, hosts),), _short(random)))
    return faults


def _blinded(random: Random, at_s: float, hosts: list[str], _: list[WorkloadSetup]) -> list[Fault]:
    """A host that may lead is told of no change, or it, or several, have too little time to tell who is silent."""
    host, for_s = _some(random, hosts), _short(random)
    if random.random() < 0.5:
        return [Fault(at_s, "watch-stuck", (host,), for_s)]
    apart_s = random.choice(("0.55", "0.7", "0.9"))
    crash = Fault(at_s + random.uniform(0.0, 3.0), "crash", (_some(random, hosts),), random.uniform(5.0, 12.0))
    slow = [host] if random.random() < 0.5 else random.sample(hosts, random.randint(1, len(hosts)))
    return [
        *(Fault(at_s, "slow-ticks", (name, apart_s), random.uniform(1.0, 3.0) * for_s + 5.0) for name in slow),
        crash,
    ]


def _claim_taken(random: Random, at_s: float, hosts: list[str], _: list[WorkloadSetup]) -> list[Fault]:
    """A host that cannot notice it loses its claim long before its deadline: only waiting keeps this safe."""
    host, for_s = _some(random, hosts), random.uniform(4.5, 9.0)
    verb = random.choice(("hang-agent", "hang-agent", "kill-agent", "unplug", "store-away"))
    return [
        Fault(at_s, verb, (host,), for_s),
        Fault(at_s + random.uniform(0.0, 2.0), "delete", (f"claims/{host}",)),
    ]


def _link(random: Random, at_s: float, hosts: list[str], _: list[WorkloadSetup]) -> list[Fault]:
    one, other = _groups(random, hosts)
    verb = random.choice(("cut-link", "cut-link", "cut-link-oneway"))
    for_s = random.choice((random.uniform(0.1, 0.6), _short(random)))
    cut = Fault(at_s, verb, (one, other), for_s)
    if random.random() < 0.5:
        return [cut]
    # One side of it cannot ask the store either.
    away = random.choice(("store-away", "store-deaf", "store-mute", "crash", "pause", "kill-agent"))
    return [cut, Fault(at_s + random.uniform(-0.1, 0.6), away, (random.choice(hosts),), _short(random))]


def _move(random: Random, at_s: float, hosts: list[str], workloads: list[WorkloadSetup]) -> list[Fault]:
    """A machine is asked to move, or to keep its state; and sometimes it is called off, or something breaks midway."""
    machines = [each.workload.name for each in workloads if each.workload.kind is Kind.VM]
    name = random.choice(machines or [each.workload.name for each in workloads])
    verb = random.choice(("migrate", "migrate", "migrate", "failover", "checkpoint", "resume"))
    anywhere = verb in ("checkpoint", "resume") or random.random() < 0.5
    faults = [Fault(at_s, verb, (name,) if anywhere else (name, _some(random, hosts)))]
    later_s = random.choice((0.05, 0.5, 2.0)) * random.random()
    if random.random() < 0.25:
        faults.append(Fault(at_s + later_s, "cancel", (name,)))
    elif random.random() < 0.4:
        verb = random.choice(("crash", "pause", "kill-agent", "stall-managers", "store-away", "store-mute"))
        faults.append(Fault(at_s + later_s, verb, (_some(random, hosts),), _short(random)))
    return faults


def _kill_standby(random: Random, at_s: float, _: list[str], workloads: list[WorkloadSetup]) -> list[Fault]:
    return [Fault(at_s, "kill-standby", (random.choice(workloads).workload.name,))]


def _kill_manager(random: Random, at_s: float, hosts: list[str], workloads: list[WorkloadSetup]) -> list[Fault]:
    """Alone, or while the agent is away that would notice."""
    kill = Fault(at_s + random.uniform(0.0, 0.5), "kill-manager", (random.choice(workloads).workload.name,))
    if random.random() < 0.5:
        return [kill]
    return [
        kill,
        *(
            Fault(at_s, "kill-agent", (host,), random.uniform(0.2, 1.5))
            for host in random.sample(hosts, min(2, len(hosts)))
        ),
    ]


def _stall_managers(random: Random, at_s: float, hosts: list[str], _: list[WorkloadSetup]) -> list[Fault]:
    return [Fault(at_s, "stall-managers", (_some(random, hosts),), random.choice((0.2, 0.4, _short(random))))]


def _kill_guard(random: Random, at_s: float, hosts: list[str], _: list[WorkloadSetup]) -> list[Fault]:
    return [Fault(at_s, "kill-guard", (_some(random, hosts),))]


def _fence_ill(random: Random, at_s: float, hosts: list[str], _: list[WorkloadSetup]) -> list[Fault]:
    """A device does not work, while a host has to be fenced."""
    verb = random.choice(("fence-fails", "fence-fails", "fence-slow", "fence-lies"))
    args = (random.choice(("power", "power", "socket")), *random.choice(((), (_some(random, hosts),))))
    ill = Fault(at_s, verb, args, random.choice((_short(random), random.uniform(10.0, 20.0))))
    return [ill, Fault(at_s + random.uniform(0.0, 2.0), "crash", (_some(random, hosts),), _short(random))]


def _confirm(random: Random, at_s: float, hosts: list[str], _: list[WorkloadSetup]) -> list[Fault]:
    """Somebody says that a host is off while it dies, hangs, lives, or is another machine soon."""
    host = _some(random, hosts)
    verb = random.choice(("crash", "replace", "replace", "unplug", "pause", "hang-agent"))
    away = Fault(at_s, verb, (host,), random.uniform(4.0, 15.0))
    return [away, Fault(at_s + random.uniform(0.0, 9.0), "confirm-dead", (host,))]


DRAFTS: dict[str, tuple[int, Draft]] = {
    "crash": (8, _of_host("crash", 0.5)),
    "two crash": (3, _two_crash),
    "pause": (8, _of_host("pause")),
    "kill agent": (5, _of_host("kill-agent")),
    "kill agent midway": (5, _midway),
    "hang agent": (6, _of_host("hang-agent")),
    "claim taken": (3, _claim_taken),
    "kill guard": (1, _kill_guard),
    "partition": (10, _partition),
    "isolate": (4, _of_host("isolate")),
    "unplug": (4, _of_host("unplug")),
    "flapping": (4, _flapping),
    "link": (6, _link),
    "stall managers": (4, _stall_managers),
    "kill manager": (3, _kill_manager),
    "move": (4, _move),
    "kill standby": (3, _kill_standby),
    "lose": (2, _of_all("lose", "0.1", "0.3", "0.6")),
    "double": (2, _of_all("double", "0.3", "1")),
    "delay": (2, _of_all("delay", "0.3", "1", "3")),
    "store away": (4, _of_host("store-away")),
    "store deaf": (3, _of_host("store-deaf")),
    "store mute": (4, _of_host("store-mute")),
    "store down": (3, _of_all("store-down")),
    "store slow": (3, _of_all("store-slow", "0.3", "1.5", "4")),
    "datastore away": (4, _of_host("datastore-away")),
    "datastore hung": (4, _of_host("datastore-hung")),
    "datastore down": (2, _of_all("datastore-down")),
    "datastore stale": (3, _stale),
    "crash module": (5, _of_module("crash-module")),
    "hang module": (3, _of_module("hang-module")),
    "fail starts": (5, _of_workload("fail-starts")),
    "fail prepares": (2, _of_workload("fail-prepares")),
    "hang stops": (2, _of_workload("hang-stops")),
    "operator": (8, _asked),
    "maintenance": (2, _of_maintenance),
    "freeze": (1, _of_all("freeze")),
    "watch stuck": (1, _blinded),
    "by hand": (2, _by_hand),
    "fence ill": (3, _fence_ill),
    "confirm dead": (2, _confirm),
    **chance_packages.DRAFTS,
}
"""Kinds of faults by name: how often, and how one is drawn."""


def _faults(random: Random, setup: Setup, hosts: list[str], kinds: tuple[str, ...] | None) -> tuple[Fault, ...]:
    # A run with all kinds of faults at once drowns each of them; most runs have only some kinds, and so more of each.
    share = random.choice((0.15, 0.3, 0.6, 1.0))
    chosen = [each for each in DRAFTS.values() if random.random() < share] or [random.choice([*DRAFTS.values()])]
    if kinds is not None:
        chosen = [DRAFTS[kind] for kind in kinds]
    faults: list[Fault] = []
    workloads = list(setup.workloads)
    at_s = random.uniform(0.0, SETTLE_S)
    pace_s = random.choice((0.7, 1.5, 2.5, 5.0))
    while at_s < setup.calm_at_s - 1.0:
        (draft,) = random.choices([draft for _, draft in chosen], [weight for weight, _ in chosen])
        faults += draft(random, round(at_s, 3), hosts, workloads)
        at_s += random.expovariate(1.0 / pace_s)
    return tuple(_before(fault, setup.calm_at_s) for fault in sorted(faults, key=lambda each: each.at_s))


def _before(fault: Fault, calm_at_s: float) -> Fault:
    """The same fault, over before the calm."""
    at_s = round(min(fault.at_s, calm_at_s - 0.1), 3)
    for_s = None if fault.for_s is None else round(max(0.01, min(fault.for_s, calm_at_s - at_s)), 3)
    return replace(fault, at_s=at_s, for_s=for_s)
