"""Virtual machines for labs: the workload file of a guest, and waiting until one runs, and is followed.

The guest is in the lab's LAN, where its clients are, and keeps its address wherever it runs. What its clients
saw is judged in `guests.history`; ways to break hosts are elsewhere.
"""

from dataclasses import dataclass
from typing import Any

from . import ready
from .guests.clients import Server
from .guests.debian import DebianGuest
from .guests.tiny import TinyGuest
from .lab import Lab
from .network import MACHINES_BRIDGE
from .plan import NETWORK_4

WORKLOAD = "machine"
ADDRESS = f"{NETWORK_4}.150"
MAC = "52:54:00:77:00:96"
BOOTED_S = 60.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What machine a lab is to have.

    disk_on: where its one disk is; None: none.  source: the image that it is copied from; '': it is empty at first.
    more:    other tables of the file.
    """

    protection: str = "cold"
    name: str = WORKLOAD
    address: str = ADDRESS
    mac: str = MAC
    cpus: int = 1
    memory_mib: int = 256
    type: str = "q35"
    disk_on: str | None = "shared"
    disk_mib: int = 64
    source: str = ""
    network: str | None = None
    more: str = ""


def workload_file(guest: TinyGuest | DebianGuest, wish: Wish) -> str:
    """The workload file of a guest."""
    link = f'network = "{wish.network}"' if wish.network else f'bridge = "{MACHINES_BRIDGE}"'
    disk = ""
    if wish.disk_on is not None:
        disk = f'[[vm.disk]]\nname = "data"\non = "{wish.disk_on}"\nsize_mib = {wish.disk_mib}\n'
        disk += f'source = "{wish.source}"\n' if wish.source else ""
    return f"""
name = "{wish.name}"
kind = "vm"
protection = "{wish.protection}"

[vm]
cpus = {wish.cpus}
memory_mib = {wish.memory_mib}
type = "{wish.type}"
stop_s = 30

[vm.boot]
kernel = "{guest.kernel}"
initrd = "{guest.initrd}"
append = "{guest.append_for(f"{wish.address}/24")}"

{disk}
[[vm.nic]]
name = "lan"
mac = "{wish.mac}"
{link}

{wish.more}
"""


def begin(lab: Lab, guest: TinyGuest, wish: Wish = Wish(), *, timeout_s: float = BOOTED_S) -> str:
    """Have the cluster run a machine; returns its host once the guest's server answers. Raises LabNotReady."""
    ready.any_client(lab).put(f"/v1/workloads/{wish.name}", workload_file(guest, wish).encode())
    host = ready.until_running(lab, wish.name, timeout_s)
    Server.reach(wish.address, timeout_s, namespace=lab.plan.client).close()
    return host


def until_followed(lab: Lab, name: str, timeout_s: float, *, besides: tuple[str, ...] = ()) -> tuple[str, str]:
    """Wait until a standby holds a whole epoch of a machine; returns the primary's host and the standby's."""

    def followed(found: dict[str, Any]) -> bool:
        each = ready.workload(found, name)
        return each is not None and each["state"] == "running" and placement(lab, name, besides=besides)["paired"]

    ready.until(lab, f"a standby follows {name}", followed, timeout_s, besides=besides)
    placed = placement(lab, name, besides=besides)
    return placed["host"], placed["standby"]


def placement(lab: Lab, name: str, *, besides: tuple[str, ...] = ()) -> dict[str, Any]:
    """The placement that stands in the store."""
    found: dict[str, Any] = ready.any_client(lab, besides=besides).get(f"/v1/workloads/{name}")["placement"]
    return found


def progress(lab: Lab, name: str) -> dict[str, Any]:
    """How replication went in the last second, by the primary's communication manager; empty when it did not tell."""
    machine = ready.any_client(lab).get(f"/v1/workloads/{name}").get("machine") or {}
    return dict(machine.get("progress") or {})
