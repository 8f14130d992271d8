"""The devices of a libvirt domain: disks and network cards are taken over, and the guest's agent; the rest is told.

Part of `domain`, which says what holds for all of it.
"""

import re
from collections.abc import Mapping
from typing import Any

from outlive.cluster.machine_rules import (
    BRIDGE,
    LONGEST_DEVICE_NAME,
    LONGEST_PATH,
    MAC,
    MOST_DISKS,
    MOST_NICS,
    SAFE_PATH,
    is_multicast,
)

from .domain_taking import Taking
from .domain_xml import Element

_HAS_ANYWAY = frozenset({"emulator", "controller", "panic", "disk", "interface"})
_NO_DISPLAY = "its display is looked at with `outlive screenshot`, its console with `outlive console`"
_BOUND = "it binds the machine to one host, and the standby or next host has no such thing"
_WHY: Mapping[str, str] = {
    "graphics": _NO_DISPLAY,
    "video": "it has the board's usual display adapter",
    "sound": "it makes no sound",
    "audio": "it makes no sound",
    "hostdev": _BOUND,
    "redirdev": _BOUND,
    "redirfilter": _BOUND,
    "smartcard": _BOUND,
    "lease": "the cluster keeps its own locks",
    "filesystem": "folders of a host do not move with it; put the files on a disk",
    "tpm": "a TPM's state is kept on one host, and is neither followed nor checkpointed",
    "watchdog": "a guest that stands still is told by its agent: see [vm.watch]",
    "memory": "memory is not added while it runs",
    "memballoon": "none of its memory is taken back from it",
    "rng": "the guest has the processor's random numbers",
    "shmem": _BOUND,
    "vsock": "the guest is reached by its network and its agent",
    "iommu": "the board has none",
    "nvram": "it is for another kind of machine",
    "hub": "it has no USB devices",
    "parallel": "it has no parallel port",
    "crypto": "the processor's own means are there",
    "pstore": "the firmware keeps no records",
}
_BUSES: Mapping[str, str] = {"virtio": "virtio", "scsi": "scsi", "sata": "sata", "": "virtio"}
_MODELS: Mapping[str, str] = {"virtio": "virtio", "virtio-transitional": "virtio", "e1000e": "e1000e"}
_OF_DISKS: Mapping[str, str] = {
    "encryption": "its image is opened with a secret that a workload file has no place for",
    "iotune": "its speed is not limited",
    "throttlefilters": "its speed is not limited",
    "serial": "its serial number is its name here",
    "wwn": "its serial number is its name here",
    "shareable": "a disk belongs to one machine",
    "transient": "what is written to it is kept",
    "mirror": "a copy that was under way is not gone on with",
    "geometry": "its geometry is the usual one",
    "blockio": "its blocks have the usual size",
    "vendor": "it has the usual maker",
    "product": "it has the usual maker",
}
_OF_NICS: Mapping[str, str] = {
    "vlan": "the bridge or network says which VLAN it is",
    "bandwidth": "its speed is not limited",
    "filterref": "its frames are not filtered",
    "virtualport": "it is on a bridge of Linux",
    "mtu": "it has the bridge's MTU",
    "link": "its cable is plugged in",
    "port": "the bridge treats it as any other",
    "guest": "the guest chooses its device's name",
    "ip": "the guest has its address by DHCP or cloud-init",
    "route": "the guest has its routes by DHCP or cloud-init",
    "rom": "it boots from its first disk, or a kernel",
    "boot": "it boots from its first disk, or a kernel",
    "teaming": _BOUND,
}


def devices(element: Element, taking: Taking) -> None:
    """Take over what can be of a domain's devices."""
    disks = [disk for disk in element.every("disk") if _is_disk(disk, taking)]
    disks.sort(key=_boot_order)
    taken = [each for disk in disks if (each := _disk(disk, taking))]
    taking.vm |= {"disk": _first(_named(taken), MOST_DISKS, "disk", element, taking)} if taken else {}
    nics: list[dict[str, Any]] = []
    for nic in element.every("interface"):
        if made := _nic(nic, {each.get("mac") for each in nics}, taking):
            nics.append({"name": f"nic{len(nics)}", **made})
    taking.vm |= {"nic": _first(nics, MOST_NICS, "interface", element, taking)} if nics else {}
    for other in element.children:
        _other(other, taking)


def _first(made: list[dict[str, Any]], most: int, what: str, element: Element, taking: Taking) -> list[dict[str, Any]]:
    if len(made) > most:
        taking.leave(f"devices/{what}", element, f"a machine has at most {most} of them; the first were taken")
    return made[:most]


def _boot_order(disk: Element) -> int:
    order = disk.of_child("boot", "order")
    return int(order) if re.fullmatch("[0-9]{1,6}", order) else 1_000_000


def _is_disk(disk: Element, taking: Taking) -> bool:
    kind = disk.get("device") or "disk"
    if kind in ("disk", "lun"):
        return True
    why = "it has no drive for removable media; an image can be a disk with read_only = true"
    taking.leave(f"devices/disk {kind[:20]}", disk, why)
    return False


def _disk(disk: Element, taking: Taking) -> dict[str, Any] | None:
    part = f"devices/disk {disk.of_child('target', 'dev')[:20]}".strip()
    source, image = disk.child("source"), disk.of_child("driver", "type") or "raw"
    path = (source.get("file") or source.get("dev")) if source else ""
    if disk.get("type") not in ("file", "block", "") or not path:
        taking.leave(
            part, disk, "its contents are not in a file or block device; copy them to one with `qemu-img convert`"
        )
        return None
    if not SAFE_PATH.fullmatch(path) or len(path) > LONGEST_PATH:
        taking.leave(part, disk, "its source is no absolute path without '..'")
        return None
    if image not in ("raw", "qcow2"):
        taking.leave(part, disk, f"its image's format is {image[:20]}; make it raw or qcow2 with `qemu-img convert`")
        return None
    if disk.child("encryption") or (source and source.child("encryption")):
        taking.leave(part, disk, _OF_DISKS["encryption"])
        return None
    made: dict[str, Any] = {"name": _device_name(disk.of_child("target", "dev")), "source": path}
    made |= {"format": image} if image != "raw" else {}
    made |= {"on": taking.on} if taking.on else {}
    made |= {"read_only": True} if disk.child("readonly") else {}
    _bus(disk, part, taking, made)
    backing = disk.child("backingStore")
    if backing is not None and backing.children:
        taking.leave(
            f"{part}/backingStore", backing, "its image lies on others; make one of them with `qemu-img convert`"
        )
    for name, why in _OF_DISKS.items():
        if (told := disk.child(name)) is not None:
            taking.leave(f"{part}/{name}", told, why)
    return made


def _bus(disk: Element, part: str, taking: Taking, made: dict[str, Any]) -> None:
    written = disk.of_child("target", "bus")
    bus = _BUSES.get(written, "sata")
    if taking.hot and bus != "virtio":
        taking.leave(f"{part}/target", disk, "under hot protection it is on virtio; the guest needs the driver for it")
        bus = "virtio"
    elif written not in _BUSES:
        taking.leave(f"{part}/target", disk, f"it is on sata, since there is no {written[:20]}")
    made |= {"bus": bus} if bus != "virtio" else {}


def _named(disks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The disks, each with a name of its own."""
    seen: set[str] = set()
    for place, disk in enumerate(disks):
        if disk["name"] in seen:
            disk["name"] = f"disk-{place}"
        seen.add(disk["name"])
    return disks


def _device_name(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:LONGEST_DEVICE_NAME].strip("-") or "disk"


def _nic(nic: Element, taken: set[str | None], taking: Taking) -> dict[str, Any] | None:
    made: dict[str, Any] = {}
    mac = nic.of_child("mac", "address").lower()
    part = f"devices/interface {mac[:20]}".strip()
    kind, source = nic.get("type"), nic.child("source")
    if kind == "bridge" and source is not None and BRIDGE.fullmatch(source.get("bridge")):
        made["bridge"] = source.get("bridge")
    elif kind == "network" and source is not None and source.get("network"):
        name = made["network"] = re.sub(r"[^a-z0-9]+", "-", source.get("network").lower())[:63].strip("-") or "network"
        told = f"it is on Outlive's network {name}, which spans hosts: make it with `outlive network create {name}`"
        taking.leave(f"{part}/source", source, told)
    else:
        taking.leave(part, nic, f"a card of type {kind[:20]} is neither on a bridge nor on a network that spans hosts")
        return None
    if MAC.fullmatch(mac) and not is_multicast(mac) and mac != "00:00:00:00:00:00":
        if mac in taken:
            taking.leave(f"{part}/mac", nic, "another card has this address; it is given one of its own")
        else:
            made["mac"] = mac
    elif mac:
        taking.leave(f"{part}/mac", nic, "it is no address of one card; it is given one of its own")
    _model(nic, part, taking, made)
    for name, why in _OF_NICS.items():
        if (other := nic.child(name)) is not None:
            taking.leave(f"{part}/{name}", other, why)
    return made


def _model(nic: Element, part: str, taking: Taking, made: dict[str, Any]) -> None:
    written = nic.of_child("model", "type")
    model = _MODELS.get(written, "e1000e")
    if taking.hot and model != "virtio":
        taking.leave(f"{part}/model", nic, "under hot protection it is virtio; the guest needs the driver for it")
        model = "virtio"
    elif written not in _MODELS:
        taking.leave(f"{part}/model", nic, f"it is e1000e, since there is no {written[:20] or 'usual one'}")
    made |= {"model": model} if model != "virtio" else {}


def _other(element: Element, taking: Taking) -> None:
    name, kind = element.name, element.get("type")
    if name in _HAS_ANYWAY:
        return
    if name in ("serial", "console"):
        if kind not in ("pty", ""):
            taking.leave(f"devices/{name} {kind[:20]}", element, "its console is reached with `outlive console`")
    elif name == "channel":
        channel = element.of_child("target", "name")
        if channel == "org.qemu.guest_agent.0":
            taking.vm["guest_agent"] = True
        else:
            taking.leave(f"devices/channel {channel[:60]}", element, "the only channel into the guest is its agent's")
    elif name == "input":
        if element.get("bus") not in ("ps2", ""):
            taking.leave(f"devices/input {kind[:20]}", element, "it has the board's keyboard and mouse")
    elif (name, element.get("model")) != ("memballoon", "none"):
        why = _WHY.get(name, "it is nothing that this version knows")
        taking.leave(f"devices/{name[:40]} {kind[:20]}".strip(), element, why)
