"""The board of a libvirt domain: memory, processors, firmware, kernel and clock. Part of `domain`."""

import re
from collections.abc import Mapping

from outlive.cluster.machine_rules import BOARD_VERSION, CPU_MODEL, SAFE_PATH

from .domain_taking import Taking
from .domain_xml import Element

_BYTES: Mapping[str, int] = {
    **dict.fromkeys(("b", "bytes"), 1),
    **dict.fromkeys(("", "k", "kib"), 1 << 10),
    **dict.fromkeys(("m", "mib"), 1 << 20),
    **dict.fromkeys(("g", "gib"), 1 << 30),
    **dict.fromkeys(("t", "tib"), 1 << 40),
    **{"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12},
}
_MIB = 1 << 20
_OF_ITSELF = frozenset({"acpi", "apic", "pae", "vmport"})


def memory(root: Element, taking: Taking) -> None:
    """Take over how much memory it has, in whole MiB."""
    element = root.child("memory") or root.child("currentMemory")
    if element is None:
        return
    unit = _BYTES.get(element.get("unit").lower())
    if unit is None or not re.fullmatch("[0-9]{1,18}", element.text):
        taking.leave("memory", element, "it is no amount of memory; the usual one was taken")
        return
    taking.vm["memory_mib"] = -(-int(element.text) * unit // _MIB)
    now = root.child("currentMemory")
    if now is not None and now is not element and (now.text, now.get("unit")) != (element.text, element.get("unit")):
        taking.leave("currentMemory", now, "the guest has all of its memory; none is taken back from it")


def processors(root: Element, taking: Taking) -> None:
    """Take over how many processors it has, and of which model."""
    element = root.child("vcpu")
    if element is not None:
        count = element.get("current") or element.text
        if re.fullmatch("[0-9]{1,5}", count):
            taking.vm["cpus"] = int(count)
        if element.get("current") not in ("", element.text):
            taking.leave("vcpu", element, f"processors are not added while it runs; it has the {count} of its start")
        if element.get("cpuset"):
            taking.leave("vcpu/cpuset", element, "processors are not pinned; the machine may run on any host")
    cpu = root.child("cpu")
    if cpu is not None:
        _model(cpu, taking)


def _model(cpu: Element, taking: Taking) -> None:
    model = cpu.child("model")
    if cpu.get("mode") in ("host-passthrough", "host-model", "maximum"):
        taking.leave("cpu", cpu, f"{cpu.get('mode')} differs from host to host; it has one that every host can give")
    elif model is not None and model.text:
        signs = {"force": "+", "require": "+", "disable": "-", "forbid": "-"}
        words = [
            f",{signs[feature.get('policy') or 'require']}{feature.get('name')}"
            for feature in cpu.every("feature")
            if (feature.get("policy") or "require") in signs
        ]
        written = model.text + "".join(words)
        if CPU_MODEL.fullmatch(written) and len(written) <= 500:
            taking.vm["cpu_model"] = written
        else:
            taking.leave("cpu/model", model, "the emulator has no such name; it has one that every host can give")
    for part, why in (
        ("topology", "each processor is a socket of its own"),
        ("numa", "the guest's memory is one piece"),
        ("cache", "the guest sees the usual caches"),
    ):
        if (told := cpu.child(part)) is not None:
            taking.leave(f"cpu/{part}", told, why)


def board(root: Element, taking: Taking) -> None:
    """Take over the board, its firmware, and what it boots."""
    system = root.child("os")
    if system is None:
        return
    written = system.of_child("type", "machine")
    taking.vm["type"] = "pc" if written.startswith("pc") and "q35" not in written else "q35"
    if BOARD_VERSION.fullmatch(written):
        taking.vm["version"] = written
    elif written not in ("", "pc", "q35"):
        told = system.child("type") or system
        taking.leave(
            "os/type", told, f"the board {written[:40]} is one distribution's; it has the usual {taking.vm['type']}"
        )
    loader = system.child("loader")
    if system.get("firmware") == "efi" or (loader is not None and loader.get("type") == "pflash"):
        taking.vm["firmware"] = "uefi"
        if taking.hot:
            del taking.vm["firmware"]
            taking.leave(
                "os/firmware", loader or system, "UEFI keeps variables, which a hot standby cannot follow; it has BIOS"
            )
        for part in ("nvram", "loader"):
            for told in system.every(part):
                why = "variables of the firmware begin anew" if part == "nvram" else "the host's own firmware is taken"
                taking.leave(f"os/{part}", told, why)
    elif loader is not None:
        taking.leave("os/loader", loader, "the emulator's own BIOS is taken")
    _kernel(system, taking)
    for element in system.children:
        if element.name in ("smbios", "bios", "bootmenu", "acpi", "dtb"):
            taking.leave(f"os/{element.name}", element, "the firmware has its usual settings")
        elif element.name == "boot" and element.get("dev") != "hd":
            taking.leave(f"os/boot={element.get('dev')[:20]}", element, "it boots from its first disk, or a kernel")


def _kernel(system: Element, taking: Taking) -> None:
    kernel = system.child("kernel")
    if kernel is None:
        return
    if not SAFE_PATH.fullmatch(kernel.text):
        taking.leave("os/kernel", kernel, "it is no absolute path without '..'")
        return
    boot = taking.vm["boot"] = {"kernel": kernel.text}
    initrd, words = system.child("initrd"), system.child("cmdline")
    if initrd is not None:
        if SAFE_PATH.fullmatch(initrd.text):
            boot["initrd"] = initrd.text
        else:
            taking.leave("os/initrd", initrd, "it is no absolute path without '..'")
    if words is not None:
        boot["append"] = " ".join(words.text.split())


def features(root: Element, taking: Taking) -> None:
    """Tell the features and clocks that it will not have as it had them."""
    told = root.child("features")
    for element in told.children if told else ():
        if element.name not in _OF_ITSELF:
            taking.leave(f"features/{element.name[:40]}", element, "the guest sees the board's usual features")
    clock = root.child("clock")
    if clock is not None:
        if clock.get("offset") not in ("utc", ""):
            taking.leave("clock", clock, "the machine's clock runs in UTC")
        if clock.children:
            taking.leave("clock/timer", clock.children[0], "the board's usual timers are taken")
