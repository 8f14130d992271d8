"""From the options of `outlive vm create` to the document of a workload file.

Only spelling is judged here; what a machine may be is judged by the file's own reader.
"""

import re
from pathlib import Path
from typing import Any

import click

_MIB: dict[str, float] = {"": 1, "k": 1 / 1024, "m": 1, "g": 1024, "t": 1024 * 1024}
_DISK_KEYS = ("name", "source", "size", "on", "format", "bus", "read_only")
_NIC_KEYS = ("name", "bridge", "network", "mac", "model")


def document_of(
    name: str,
    *,
    protection: str | None,
    site: str | None,
    replica_site: str | None,
    host: str | None,
    on: str | None,
    disks: tuple[str, ...],
    nics: tuple[str, ...],
    memory: str | None,
    kernel: str | None,
    initrd: str | None,
    append: str | None,
    user_data: Path | None,
    guest_agent: bool,
    **hardware: Any,
) -> dict[str, Any]:
    """The document that the options say. Raises UsageError for what cannot be understood."""
    protection = protection or ("hot" if replica_site else "cold")
    boot = _filled({"kernel": kernel, "initrd": initrd, "append": append})
    vm = _filled(
        {
            "cpus": hardware["cpus"],
            "memory_mib": size_mib(memory, "--memory") if memory else None,
            "type": hardware["board"],
            "cpu_model": hardware["cpu_model"],
            "firmware": hardware["firmware"],
            "guest_agent": guest_agent or None,
            "boot": boot or None,
            "disk": [_disk(text, place, on) for place, text in enumerate(disks)] or None,
            "nic": [_nic(text, place) for place, text in enumerate(nics)] or None,
            "cloud_init": {"user_data": _text_of(user_data)} if user_data else None,
        }
    )
    placement = _placement(protection, site, replica_site, host)
    warm = {"on": on} if protection == "warm" and on and not disks else None
    return _filled(
        {"name": name, "kind": "vm", "protection": protection, "placement": placement or None, "vm": vm, "warm": warm}
    )


def size_mib(text: str, option: str) -> int:
    """A size such as 20G, 512M or 512, which is MiB, in whole MiB. Raises UsageError."""
    found = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([kmgt]?)(i?b)?", text.lower())
    if found is None:
        raise click.UsageError(f"{option}: {text!r} is no size; write it as in 20G, 512M, or 512 for MiB.")
    return -(-int(float(found[1]) * _MIB[found[2]] * 1024) // 1024)


def _placement(protection: str, site: str | None, replica_site: str | None, host: str | None) -> dict[str, Any]:
    if replica_site and not site:
        raise click.UsageError("--replica-site needs --site: where it runs itself.")
    sites = list(dict.fromkeys([site, replica_site])) if site and replica_site else []
    apart = "site" if protection == "hot" and len(sites) == 2 else None
    return _filled(
        {
            "sites": sites or None,
            "prefer_sites": [site] if site else None,
            "apart": apart,
            "hosts": [host] if host else None,
        }
    )


def _disk(text: str, place: int, on: str | None) -> dict[str, Any]:
    words = _words(text, "--disk", _DISK_KEYS, "source" if text.startswith("/") else "size")
    source = words.get("source", "")
    return _filled(
        {
            "name": words.get("name") or ("root" if place == 0 else f"disk-{place}"),
            "source": source or None,
            "size_mib": size_mib(words["size"], "--disk") if "size" in words else None,
            "on": words.get("on") or on,
            "format": words.get("format") or ("qcow2" if source.endswith(".qcow2") else None),
            "bus": words.get("bus"),
            "read_only": _flag(words["read_only"]) if "read_only" in words else None,
        }
    )


def _nic(text: str, place: int) -> dict[str, Any]:
    words = _words(text, "--nic", _NIC_KEYS, "bridge")
    return {"name": f"nic{place}", **words}


def _words(text: str, option: str, keys: tuple[str, ...], bare: str) -> dict[str, str]:
    """The keys and values of an option as in a=1,b=2, whose first word may be the value of `bare` alone."""
    found: dict[str, str] = {}
    for place, word in enumerate(text.split(",")):
        key, equals, value = word.partition("=")
        if not equals and key != "read_only" and place == 0:
            key, value = bare, word
        if key not in keys or (not value and key != "read_only"):
            raise click.UsageError(f"{option}: {word!r} is not one of {', '.join(f'{name}=…' for name in keys)}.")
        if key in found:
            raise click.UsageError(f"{option}: {key} is said twice in {text!r}.")
        found[key] = value
    return found


def _flag(text: str) -> bool:
    if text.lower() not in ("", "true", "yes", "on", "1", "false", "no", "off", "0"):
        raise click.UsageError(f"--disk: read_only={text} is neither true nor false.")
    return text.lower() not in ("false", "no", "off", "0")


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise click.UsageError(f"--user-data: {path} cannot be read as text of UTF-8: {error}.") from error


def _filled(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if value is not None}
