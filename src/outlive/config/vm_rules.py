"""What must hold between the keys of a virtual machine's file, where each is right by itself.

As in `workload_rules`: a rule looks only at values that are right, and where parts of the file could not be read,
nothing is held to be missing. `outlive.cluster.machine_rules` judges the machine that comes of it the same.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from outlive.cluster.machine import LOCAL, DiskBus, Firmware, HotPolicy, MachineType, NicModel
from outlive.cluster.machine_rules import VERSION
from outlive.cluster.workload import Apart, Kind, Protection

from .problems import Path, Problems, shown

Values = Mapping[str, Any]
_UNKNOWN: dict[str, Any] = {}


def check_vm(values: Values, given: Values, problems: Problems) -> None:
    """Note what does not hold.

    values: what is right of the file.  given: all that stands in it.
    """
    kind = _chosen(values, given, "kind", Kind.SERVICE)
    protection = _chosen(values, given, "protection", Protection.COLD)
    if kind is Kind.SERVICE and protection in (Protection.WARM, Protection.HOT):
        fix = 'Write protection = "cold".'
        problems.add(("protection",), f"cannot be {shown(str(protection))} for a service, only for a vm", fix)
    placement = values.get("placement", _UNKNOWN)
    _placement_is_possible(placement, protection, problems)
    if kind is not Kind.VM:
        return
    for name in (Protection.WARM, Protection.HOT):
        if protection is not None and name != protection and name.value in given:
            fix = f'Remove it, or write protection = "{name}".'
            problems.add((name.value,), f"is for protection {name}, and this is {protection}", fix)
    machine, written = values.get("vm", _UNKNOWN), given.get("vm")
    written = written if isinstance(written, dict) else _UNKNOWN
    _hardware_fits(machine, written, problems)
    _disks_are_possible(machine, written, problems)
    _nics_are_possible(machine, written, problems)
    match protection:
        case Protection.HOT:
            _standby_can_follow(machine, placement, problems)
            _epochs_are_possible(values.get("hot", _UNKNOWN), problems)
        case Protection.COLD | Protection.WARM:
            _disks_are_where_it_goes(machine, values, given, protection, problems)


def _chosen(values: Values, given: Values, key: str, default: Any) -> Any:
    """What was chosen; None when that cannot be known."""
    return values.get(key, None if key in given else default)


def _placement_is_possible(placement: Values, protection: Protection | None, problems: Problems) -> None:
    sites = placement.get("sites", ())
    for index, site in enumerate(placement.get("prefer_sites", ())):
        if isinstance(site, str) and sites and site not in sites and all(isinstance(one, str) for one in sites):
            problems.add(
                ("placement", "prefer_sites", index),
                f"names {shown(site)}, which is not among the sites where it may run",
                f"Add {shown(site)} to placement.sites, or remove it here.",
            )
    if "apart" in placement and protection in (Protection.COLD, Protection.WARM) and "apart_from" not in placement:
        problems.add(
            ("placement", "apart"),
            f"is for protection hot or for apart_from, and this is {protection} and has none",
            'Remove it, or write protection = "hot", or apart_from with names of workloads.',
        )


def _hardware_fits(machine: Values, written: Values, problems: Problems) -> None:
    version, board = machine.get("version"), _chosen(machine, written, "type", MachineType.Q35)
    if version is not None and board is not None and not version.startswith(VERSION[board]):
        fix = f'Write a version that begins with {VERSION[board]}, or type = "{_other(board)}".'
        problems.add(("vm", "version"), f"is none of type {board}", fix)
    watch = machine.get("watch", _UNKNOWN)
    if watch.get("enabled") and problems.whole and "guest_agent" not in written:
        fix = "Write guest_agent = true in [vm], and have the agent run in the guest."
        problems.add(("vm", "watch", "enabled"), "needs the guest's agent, by whose silence it is judged", fix)
    elif watch.get("enabled") and machine.get("guest_agent") is False:
        fix = "Write guest_agent = true, and have the agent run in the guest."
        problems.add(("vm", "guest_agent"), "must be true where the guest is watched", fix)
    if problems.whole and written is not _UNKNOWN and not written.get("disk") and "boot" not in written:
        fix = "Write [[vm.disk]] with its name and size or source, or [vm.boot] with a kernel."
        problems.add(("vm",), "has neither a disk nor a kernel to boot from", fix)


def _other(board: MachineType) -> MachineType:
    return MachineType.PC if board is MachineType.Q35 else MachineType.Q35


def _disks_are_possible(machine: Values, written: Values, problems: Problems) -> None:
    _names_are_unique(_tables(machine, "disk"), "name", problems)
    for at, disk in _tables(machine, "disk"):
        if problems.whole and not {"size_mib", "source"} & _written(written, at).keys():
            fix = "Write size_mib, or source for an image that it is copied from."
            problems.add(at, "has neither a size nor a source", fix)
        if disk.get("read_only") and problems.whole and "source" not in _written(written, at):
            problems.add((*at, "read_only"), "leaves it empty for ever, since it has no source", "Write its source.")


def _nics_are_possible(machine: Values, written: Values, problems: Problems) -> None:
    _names_are_unique(_tables(machine, "nic"), "name", problems)
    _names_are_unique(_tables(machine, "nic"), "mac", problems)
    for at, _ in _tables(machine, "nic"):
        links = {"bridge", "network"} & _written(written, at).keys()
        if len(links) == 2:
            problems.add((*at, "network"), "stands beside a bridge, and a card has one of both", "Remove one of both.")
        elif not links and problems.whole:
            fix = 'Write bridge = "BRIDGE" for one that every host has, or network = "NETWORK".'
            problems.add(at, "is connected to nothing", fix)


def _names_are_unique(tables: Iterable[tuple[Path, Values]], key: str, problems: Problems) -> None:
    seen: set[str] = set()
    for at, table in tables:
        name = table.get(key)
        if name in seen:
            problems.add((*at, key), f"is {shown(name)} for the second time", "Choose another for one of the two.")
        if name is not None:
            seen.add(name)


def _standby_can_follow(machine: Values, placement: Values, problems: Problems) -> None:
    for at, disk in _tables(machine, "disk"):
        if disk.get("on", LOCAL) != LOCAL:
            fix = 'Write on = "local": the standby keeps a disk of its own, written as the first one is.'
            problems.add((*at, "on"), 'must be "local" under hot protection', fix)
        if disk.get("bus", DiskBus.VIRTIO) is not DiskBus.VIRTIO:
            problems.add((*at, "bus"), 'must be "virtio" under hot protection', 'Write bus = "virtio".')
    for at, nic in _tables(machine, "nic"):
        if nic.get("model", NicModel.VIRTIO) is not NicModel.VIRTIO:
            problems.add((*at, "model"), 'must be "virtio" under hot protection', 'Write model = "virtio".')
    if machine.get("firmware") is Firmware.UEFI:
        fix = 'Write firmware = "bios", or [vm.boot] with a kernel.'
        problems.add(("vm", "firmware"), "keeps variables, which a hot standby cannot follow", fix)
    for key, what, room in (("hosts", "host", True), ("sites", "site", placement.get("apart") is Apart.SITE)):
        if room and len(placement.get(key, ())) == 1:
            fix = f"Name another {what} too, where the standby may be."
            problems.add(("placement", key), f"leaves no {what} for the standby", fix)


def _epochs_are_possible(hot: Values, problems: Problems) -> None:
    usual = HotPolicy()
    floor, idle = hot.get("floor_ms", usual.floor_ms), hot.get("idle_ms", usual.idle_ms)
    if floor >= idle:
        key, other = ("floor_ms", f"idle_ms, which is {idle:g}")
        word = "below"
        if "floor_ms" not in hot:
            key, other, word = "idle_ms", f"floor_ms, which is {floor:g}", "above"
        problems.add(("hot", key), f"must be {word} {other}", "Write both, idle_ms the larger.")


def _disks_are_where_it_goes(
    machine: Values, values: Values, given: Values, protection: Protection, problems: Problems
) -> None:
    placed = given.get("placement")
    hosts = placed.get("hosts", ()) if isinstance(placed, dict) else ()
    pinned = not isinstance(hosts, list | tuple) or len(hosts) == 1
    disks = list(_tables(machine, "disk"))
    for at, disk in disks:
        if disk.get("on", LOCAL) == LOCAL and not pinned and problems.whole:
            where = (*at, "on") if "on" in disk else at
            fix = 'Write on = "DATASTORE", or protection = "hot", or one host alone in placement.hosts.'
            problems.add(where, f"is kept on one host, and under {protection} protection it may go to another", fix)
    stores = [disk for _, disk in disks if disk.get("on", LOCAL) != LOCAL]
    warm, whole = values.get("warm", _UNKNOWN), _whole(machine, given, len(disks))
    named = "on" in warm or "data_on" in given or _is_written(given.get("warm"), "on")
    if protection is Protection.WARM and whole and not stores and not named and problems.whole:
        fix = 'Write on = "DATASTORE" in [warm].'
        problems.add(("warm",) if "warm" in given else ("protection",), "has no datastore for its checkpoints", fix)


def _whole(machine: Values, given: Values, disks: int) -> bool:
    """Whether every disk that is written could be read."""
    vm = given.get("vm")
    written = vm.get("disk", ()) if isinstance(vm, dict) else None
    return isinstance(written, list | tuple) and len(written) == disks


def _is_written(table: object, key: str) -> bool:
    return isinstance(table, dict) and key in table


def _tables(machine: Values, key: str) -> Iterator[tuple[Path, Values]]:
    """The tables of a list that could be read, each with its place."""
    for index, table in enumerate(machine.get(key, ())):
        if isinstance(table, dict):
            yield ("vm", key, index), table


def _written(vm: Values, at: Path) -> Values:
    """All that stands in the table at such a place, right or not."""
    _, key, index = at
    table = vm[str(key)][index]
    return table if isinstance(table, dict) else _UNKNOWN
