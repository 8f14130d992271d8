"""From a virtual machine's values in a file to the machine, and back; and what is given to it that the file leaves out.

What the keys are is in `machine_shape` and `guest_shape`. The invariant: what is derived (addresses of cards, what it
needs of a host, where its run lock is) follows from the file alone, so that the same file is the same machine again.
"""

from typing import Any

from outlive.cluster.host import Capacity
from outlive.cluster.machine import (
    LOCAL,
    MODULE,
    CloudInit,
    Disk,
    GuestWatch,
    HotPolicy,
    KernelBoot,
    Machine,
    Nic,
    WarmPolicy,
)
from outlive.cluster.machine_rules import derived_mac, needs
from outlive.cluster.workload import Module, Protection, Workload

from .nouns import given, part


def machine_parts(name: str, protection: Protection, values: dict[str, Any]) -> dict[str, Any]:
    """Take the parts of a virtual machine out of a file's values, as fields of its workload."""
    machine = _machine(name, values.pop("vm"))
    resources = values.pop("resources", {})
    usual = needs(machine, protection)
    stores = [disk.on for disk in machine.disks if disk.on != LOCAL]
    data_on = values.pop("data_on", None) or (stores[0] if stores else None)
    return {
        "modules": (Module(MODULE, ()),),
        "machine": machine,
        "resources": Capacity(resources.get("cpus", usual.cpus), resources.get("memory_mib", usual.memory_mib)),
        "data_on": data_on,
        "warm": WarmPolicy(**values.pop("warm", {})),
        "hot": HotPolicy(**values.pop("hot", {})),
    }


def machine_document(workload: Workload, machine: Machine) -> dict[str, Any]:
    """The document of a machine and of how its state is kept, without what is as it would be anyway."""
    own = ("cpus", "memory_mib", "type", "version", "cpu_model", "firmware", "guest_agent", "stop_s")
    vm = {
        **given(machine, *own),
        **part("boot", given(machine.boot) if machine.boot else {}),
        **part("disk", [given(disk) for disk in machine.disks]),
        **part("nic", [given(nic) for nic in machine.nics]),
        **({"cloud_init": given(machine.cloud_init)} if machine.cloud_init else {}),
        **part("watch", given(machine.watch)),
    }
    return {"vm": vm, **part("warm", given(workload.warm)), **part("hot", given(workload.hot))}


def needs_document(workload: Workload, machine: Machine) -> dict[str, Any]:
    """What a machine needs of a host, where that is not what its hardware says."""
    usual, own = needs(machine, workload.protection), workload.resources
    return {
        **({"cpus": own.cpus} if own.cpus != usual.cpus else {}),
        **({"memory_mib": own.memory_mib} if own.memory_mib != usual.memory_mib else {}),
    }


def _machine(name: str, values: dict[str, Any]) -> Machine:
    parts = dict(values)
    boot, cloud_init = parts.pop("boot", None), parts.pop("cloud_init", None)
    return Machine(
        boot=KernelBoot(**boot) if boot else None,
        disks=tuple(Disk(**disk) for disk in parts.pop("disk", ())),
        nics=_nics(name, parts.pop("nic", ())),
        cloud_init=None if cloud_init is None else CloudInit(**cloud_init),
        watch=GuestWatch(**parts.pop("watch", {})),
        **parts,
    )


def _nics(name: str, tables: tuple[dict[str, Any], ...]) -> tuple[Nic, ...]:
    """The cards; each that has no address is given one that none of the others has."""
    taken = {nic["mac"] for nic in tables if "mac" in nic}
    nics = []
    for nic in tables:
        mac = nic.get("mac") or derived_mac(name, nic["name"], taken)
        taken.add(mac)
        nics.append(Nic(**{**nic, "mac": mac}))
    return tuple(nics)
