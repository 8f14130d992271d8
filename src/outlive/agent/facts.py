"""What a host is, read once when its agent starts: its member record, the cluster's key, its boot.

Only reading; what is missing or wrong is an error that names the file and the fix.
"""

import os
from pathlib import Path

from outlive import spawn
from outlive.cluster import boot
from outlive.cluster.host import Capacity, Host
from outlive.config.agent_file import AgentConfig
from outlive.errors import UsageInvalid
from outlive.wire.seal import KEY_BYTES

MACHINE_ID = Path("/etc/machine-id")
PRODUCT_UUID = Path("/sys/class/dmi/id/product_uuid")


class KeyUnusable(UsageInvalid):
    """The cluster's key cannot be read, or is none."""

    id = "agent.key-unusable"


def cluster_key(path: Path) -> bytes:
    """The cluster's 32-byte key, kept as hexadecimal text. Raises KeyUnusable."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    if len(content) == KEY_BYTES:
        return content
    try:
        key = bytes.fromhex(content.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise _unusable(path, f"it is not {KEY_BYTES} bytes, nor {2 * KEY_BYTES} hexadecimal digits")
    return key


def boot_id() -> str:
    """The id of this machine and of the present start of its kernel."""
    return boot.boot_id(_machine(), spawn.boot_id())


def _machine() -> str:
    """What no other machine has: copies of one image share the first, disks that moved the second.

    '': not known. A file that cannot be read now could be read next time, and the machine would seem to be another:
    that errs on the safe side.
    """
    told = [_first_line(path) for path in (MACHINE_ID, PRODUCT_UUID)]
    return " ".join(told) if told[0] else ""


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def member(config: AgentConfig) -> Host:
    """The host as it registers itself."""
    return Host(
        name=config.host,
        site=config.site,
        address=config.address,
        port=config.port,
        peer_port=config.peer_port,
        capacity=config.capacity or machine_capacity(),
        labels=dict(config.labels),
        datastores=tuple(datastore.name for datastore in config.datastores),
    )


def machine_capacity() -> Capacity:
    """What this machine has."""
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return Capacity(float(os.cpu_count() or 1), pages * page_bytes // (1024 * 1024))


def _unusable(path: Path, cause: str) -> KeyUnusable:
    return KeyUnusable(
        f"The cluster's key {path} cannot be used.",
        cause=cause,
        remedy="copy it from another host of the cluster, readable by root alone",
    )
