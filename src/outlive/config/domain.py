"""From a libvirt domain to a workload file, with a sentence for each part that could not be taken over.

Only what both sides mean alike is taken. What a machine of ours has anyway is passed over in silence (its board's
controllers, a serial console); all else is told, so that nobody misses something after the move. The invariant: the
document that comes of it can be read, as what it says.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from outlive.cluster.workload import Protection

from .domain_board import board, features, memory, processors
from .domain_devices import devices
from .domain_taking import Left, Taking
from .domain_xml import DomainInvalid, Element, read_xml
from .problems import printable
from .workload_file import WorkloadFileError, workload_from_document

_SILENT = frozenset({"name", "devices", "os", "memory", "vcpu", "features", "cpu", "clock", "on_crash"})
_WHY: Mapping[str, str] = {
    "uuid": "a machine goes by its name here; what the guest reads as its UUID will be another",
    "title": "it is only told to people; a comment in the file can say it",
    "description": "it is only told to people; a comment in the file can say it",
    "metadata": "it belongs to other programs",
    "maxMemory": "memory is not added while the machine runs",
    "memoryBacking": "how memory is held is Outlive's: replicas and checkpoints depend on it",
    "memtune": "the control group's limits follow from the machine",
    "blkiotune": "shares of a disk are not divided here",
    "cputune": "processors are not pinned; the machine may run on any host",
    "numatune": "processors are not pinned; the machine may run on any host",
    "iothreads": "disks have no threads of their own",
    "iothreadids": "disks have no threads of their own",
    "resource": "control groups are the agent's",
    "bootloader": "it is for another hypervisor",
    "sysinfo": "the guest reads Outlive's own SMBIOS strings",
    "pm": "guests are not put to sleep",
    "perf": "events of the processor are not counted",
    "seclabel": "the emulator is confined by Outlive's own means",
    "launchSecurity": "memory that is encrypted cannot be followed or checkpointed",
    "keywrap": "it is for another kind of machine",
    "idmap": "it is for containers",
    "vcpus": "processors are not added while the machine runs",
    "genid": "a generation id is not shown to the guest",
    "qemu:commandline": "words of the emulator's command line could undo what protection rests on",
    "qemu:capabilities": "what the emulator can do is asked of itself",
}


@dataclass(frozen=True, slots=True)
class Imported:
    """A domain as a document of a workload file, and what is not in it."""

    document: dict[str, Any]
    left: tuple[Left, ...]


def import_domain(
    raw: bytes,
    source: str = "the domain",
    *,
    protection: Protection = Protection.COLD,
    on: str | None = None,
    host: str | None = None,
    name: str | None = None,
) -> Imported:
    """Make a workload file's document of a libvirt domain.

    raw:  the XML, as `virsh dumpxml` writes it; at most 1 MiB.
    on:   the datastore for its disks and checkpoints; None: they are local.
    host: the one host that it is to stay on; None: any.  name: another name than the domain's.
    Raises DomainInvalid when it is no domain or no machine can be made of it, and nothing else for any bytes.
    """
    root = read_xml(raw, source)
    _is_machine(root, source)
    taking = Taking(protection, on)
    for part in (memory, processors, board, features):
        part(root, taking)
    devices(root.child("devices") or Element("devices", {}, root.line), taking)
    _crash(root, taking)
    for element in root.children:
        if element.name not in _SILENT:
            _rest(element, taking)
    document: dict[str, Any] = {
        "name": name or _name(root, taking),
        "kind": "vm",
        "protection": protection.value,
        **({"placement": {"hosts": [host]}} if host else {}),
        "vm": taking.vm,
        **({"warm": {"on": on}} if protection is Protection.WARM and on and not taking.vm.get("disk") else {}),
    }
    return Imported(_checked(document, source), tuple(sorted(taking.left, key=lambda left: left.line)))


def _checked(document: dict[str, Any], source: str) -> dict[str, Any]:
    try:
        workload_from_document(document, source)
    except WorkloadFileError as error:
        raise DomainInvalid(
            f"No machine can be made of {printable(source)} as it is.",
            cause=error.cause,
            remedy="change it there, or say --on DATASTORE, --host HOST or --protection as its disks need it",
        ) from error
    return document


def _is_machine(root: Element, source: str) -> None:
    kind, system = root.get("type"), root.child("os")
    type_ = system.child("type") if system else None
    arch = type_.get("arch") if type_ else ""
    why = ""
    if root.name != "domain":
        why = f"its first element is <{root.name[:40]}>, not <domain>"
    elif kind not in ("kvm", "qemu", "hvf", ""):
        why = f"it is for the hypervisor {kind[:40]}, and Outlive's machines are QEMU's"
    elif type_ is not None and type_.text not in ("hvm", ""):
        why = f"its guests' kind is {type_.text[:40]}, and Outlive's machines are whole ones (hvm)"
    elif arch not in ("x86_64", "amd64", "i686", ""):
        why = f"its processor is {arch[:40]}, and Outlive's machines are x86_64"
    if why:
        raise DomainInvalid(
            f"{printable(source)} is no domain that Outlive can run.",
            cause=printable(why),
            remedy="name a file that `virsh dumpxml DOMAIN` wrote for a machine of QEMU on x86_64",
        )


def _name(root: Element, taking: Taking) -> str:
    element = root.child("name")
    written = element.text if element else ""
    name = re.sub(r"[^a-z0-9]+", "-", written.lower())[:63].strip("-") or "machine"
    if element is not None and name != written:
        taking.leave("name", element, f"a name has a-z, 0-9 and '-' here, so {written[:60]!r} became {name!r}")
    return name


def _crash(root: Element, taking: Taking) -> None:
    element = root.child("on_crash")
    if element is None:
        return
    match element.text:
        case "restart" | "coredump-restart" | "rename-restart":
            taking.vm["watch"] = {"panic": "restart"}
        case "preserve" | "coredump-destroy":
            taking.vm["watch"] = {"panic": "leave"}
        case _:
            why = 'a guest that panicked is restarted; write panic = "leave" in [vm.watch] to have it left'
            taking.leave("on_crash", element, why)


def _rest(element: Element, taking: Taking) -> None:
    usual = {"on_poweroff": "destroy", "on_reboot": "restart", "currentMemory": element.text}
    if element.text == usual.get(element.name):
        return
    if element.name in ("on_poweroff", "on_reboot", "on_lockfailure"):
        why = "what is wanted of a workload is what the cluster keeps: it is started again unless it is stopped there"
    else:
        why = _WHY.get(element.name, "it is nothing that this version knows")
    taking.leave(element.name[:40], element, why)
