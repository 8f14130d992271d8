"""What a lab consists of, as values: names, addresses, folders, before anything is made.

The plan is written to disk first, so that whoever comes later can clear up whatever was made of it.
No namespace or process is touched here.
"""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from outlive.config.store_address import EtcdAddress, StoreAddressInvalid, parse_store
from outlive.errors import OutliveError, UsageInvalid

MOST_HOSTS = 32
LAB_NAME = re.compile(r"[a-z0-9]{1,8}")
NETWORK_4 = "10.77.0"
NETWORK_6 = "fd77::"
UNDERLAY = "10.79"
ROUTER_NUMBER = 1
PORT, PEER_PORT = 7410, 7411
CLIENT_NUMBER = 2
FIRST_HOST, FIRST_VIRTUAL = 11, 100
SQLITE, ETCD = "sqlite", "etcd"
MEMBERS = ("store1", "store2", "store3")
MEMBER_SUBNET, FIRST_MEMBER = 101, 11


class LabMissing(OutliveError):
    """There is no lab of that name."""

    id = "lab.missing"


@dataclass(frozen=True, slots=True)
class LabHost:
    """One host: its name, site, number in the network, and its namespace."""

    name: str
    site: str
    number: int
    namespace: str

    @property
    def address(self) -> str:
        """Its own address, by which the other hosts reach it: in its site's network."""
        return site_address(self.site, self.number)

    @property
    def lan_address(self) -> str:
        """Its address in the network that clients are in, which spans all sites."""
        return f"{NETWORK_4}.{self.number}"


@dataclass(frozen=True, slots=True)
class LabPlan:
    """A whole lab. cluster: the id that its heartbeats carry; folder: everything of it that is on disk.

    store_kind: the hosts' store is one SQLite file beside the network, an etcd of three members within it, or, where
    this is an address, an etcd outside of the lab.
    """

    name: str
    cluster: str
    hosts: tuple[LabHost, ...]
    sites: tuple[str, ...]
    folder: str
    store_kind: str = SQLITE

    @property
    def members(self) -> tuple[str, ...]:
        """The members of the lab's own etcd, or the one way to an etcd outside; none where the store is SQLite."""
        if self.store_kind == SQLITE:
            return ()
        return MEMBERS if self.store_kind == ETCD else MEMBERS[:1]

    @property
    def outside_store(self) -> EtcdAddress | None:
        """The etcd outside of the lab that it uses, if it does; each lab has a prefix of its own there."""
        address = parse_store(self.store_kind) if "://" in self.store_kind else None
        if not isinstance(address, EtcdAddress):
            return None
        return replace(address, prefix=f"{address.prefix}/{self.name}-{self.cluster}")

    @property
    def root(self) -> Path:
        """The lab's folder: plan, keys, and a small file system in memory for the store and the hosts' data."""
        return Path(self.folder)

    @property
    def memory(self) -> Path:
        """Where the file system in memory is mounted that holds the store."""
        return self.root / "memory"

    @property
    def store(self) -> Path:
        """The SQLite store that the hosts share; in memory, so that a slowed disk slows datastores only."""
        return self.memory / "store.db"

    @property
    def datastore(self) -> Path:
        """The shared folder, on disk."""
        return self.root / "datastore"

    @property
    def switch(self) -> str:
        """The namespace that holds the bridges."""
        return f"ol-{self.name}-switch"

    @property
    def client(self) -> str:
        """The namespace that clients run in."""
        return f"ol-{self.name}-client"

    def host(self, name: str) -> LabHost:
        """The host of that name. Raises UsageInvalid when the lab has none."""
        for host in self.hosts:
            if host.name == name:
                return host
        names = ", ".join(host.name for host in self.hosts)
        raise UsageInvalid(f"The lab has no host {name}.", remedy=f"its hosts are {names}")

    def member_namespace(self, member: str) -> str:
        """The namespace of a member of the lab's etcd."""
        return f"ol-{self.name}-{member}"

    def member_folder(self, member: str) -> Path:
        """Where a member keeps its data, a file system in memory that outlasts a power cut."""
        return self.root / "members" / member

    def host_folder(self, name: str) -> Path:
        """A host's own folder; its data lies in `data` below it, a file system of limited size."""
        return self.root / "hosts" / name

    def run_folder(self, name: str) -> Path:
        """Where a host's agent has its sockets."""
        return self.host_folder(name) / "run"

    def api(self, name: str) -> Path:
        """The socket of a host's API."""
        return self.run_folder(name) / "api.sock"


def site_address(site: str, number: int) -> str:
    """An address in a site's own network; that of site 3 is 10.79.3.0/24."""
    return f"{UNDERLAY}.{int(site.removeprefix('site'))}.{number}"


def member_address(member: str) -> str:
    """A member's address; all are in a network of their own behind the hosts' router."""
    return f"{UNDERLAY}.{MEMBER_SUBNET}.{FIRST_MEMBER + MEMBERS.index(member)}"


def labs_folder() -> Path:
    """Where labs are kept: /run is for root; without it nothing of a lab can be made anyway."""
    return Path(os.environ.get("OUTLIVE_LABS", "/var/lib/outlive-lab"))


def plan(name: str, hosts: int, sites: int, store: str = SQLITE) -> LabPlan:
    """Plan a lab of `hosts` hosts (a, b, c…) dealt out to `sites` sites. Raises UsageInvalid for impossible wishes."""
    if not LAB_NAME.fullmatch(name):
        raise UsageInvalid(f"{name!r} cannot name a lab.", remedy="use 1 to 8 of a-z and 0-9")
    if not 1 <= hosts <= MOST_HOSTS:
        raise UsageInvalid(f"A lab cannot have {hosts} hosts.", remedy=f"choose from 1 to {MOST_HOSTS}")
    if not 1 <= sites <= hosts:
        raise UsageInvalid(f"{hosts} hosts cannot be in {sites} sites.", remedy="choose at most one site for each host")
    _check_store(store)
    site_names = tuple(f"site{number + 1}" for number in range(sites))
    planned = tuple(
        LabHost(
            host_name(index), site_names[index * sites // hosts], FIRST_HOST + index, f"ol-{name}-{host_name(index)}"
        )
        for index in range(hosts)
    )
    return LabPlan(name, os.urandom(8).hex(), planned, site_names, str(labs_folder() / name), store)


def _check_store(store: str) -> None:
    if store in (SQLITE, ETCD):
        return
    remedy = f"choose {SQLITE}, {ETCD}, or the address of an etcd that needs neither TLS nor a user: etcd://HOST:PORT"
    try:
        address = parse_store(store)
    except StoreAddressInvalid as error:
        raise UsageInvalid(f"A lab has no store {store!r}.", cause=f"it {error}", remedy=remedy) from None
    if not isinstance(address, EtcdAddress) or address.tls:
        # Hosts reach it by a relay, whose address stands in no certificate.
        raise UsageInvalid(f"A lab cannot use the store {store}.", remedy=remedy)


def host_name(index: int) -> str:
    """a, b, …, z, aa, ab, …"""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return letters[index] if index < len(letters) else letters[index // 26 - 1] + letters[index % 26]


def save(lab: LabPlan) -> None:
    """Write the plan down, before any of it is made."""
    lab.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = lab.root / "plan.json.new"
    with fresh.open("wb") as file:
        file.write(msgspec.json.encode(lab))
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(lab.root / "plan.json")


def load(name: str) -> LabPlan:
    """Read the plan of a lab that was begun. Raises LabMissing when there is none that can be read."""
    path = labs_folder() / name / "plan.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=LabPlan)
    except FileNotFoundError:
        raise LabMissing(f"There is no lab {name!r} here.", remedy="make one with `outlive lab up`") from None
    except (msgspec.MsgspecError, OSError) as error:
        raise LabMissing(
            f"The plan of lab {name!r} cannot be read.", cause=str(error), remedy=f"remove {path.parent} and begin anew"
        ) from error


def known() -> list[str]:
    """The labs that have a plan on this machine."""
    folder = labs_folder()
    return sorted(path.parent.name for path in folder.glob("*/plan.json")) if folder.is_dir() else []
