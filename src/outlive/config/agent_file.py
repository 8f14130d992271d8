"""An agent's file: from TOML to an `AgentConfig` and back, and the JSON Schema for editors.

What the keys are is in `agent_shape`. Whether the paths exist, and whether the address is this machine's, is seen
when they are used. The invariant: what `agent_document` makes of a configuration that was read, read again, is the
same configuration.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from outlive.cluster.host import Capacity
from outlive.cluster.timing import Timing, check

from . import agent_shape as shape
from .fencing import Fencing, check_fencing, fencing_document, fencing_of
from .problems import FileInvalid, Problems
from .reading import checked_text, file_bytes
from .schemas import schema_of
from .store_address import EtcdAddress, SqliteAddress, StoreAddress, parse_store

AGENT_FILE = Path("/etc/outlive/agent.toml")


class AgentFileError(FileInvalid):
    """An agent's file with mistakes: `problems` has each with its line, path, sentence and fix."""

    id = "agent-file.invalid"
    what = "agent file"


@dataclass(frozen=True, slots=True)
class ClusterMembership:
    """The cluster that a host belongs to. id: 16 hexadecimal digits. key_file: holds the cluster's 32-byte key."""

    id: str
    key_file: Path = Path(shape.CLUSTER_KEY_FILE)


@dataclass(frozen=True, slots=True)
class DatastoreFolder:
    """A datastore's name in the cluster, and where this host has it."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: the authority's certificate, this host's, and this host's private key."""

    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class StoreTls:
    """PEM files for an etcd store. ca: None for the system's authorities; certificate and key: both or none."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class StoreLogin:
    """Who a host is to an etcd store. The file holds the password; without_tls: which may be sent for all to read."""

    user: str
    password_file: Path
    without_tls: bool = False


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """All that an agent is told about its host.

    address, port: where heartbeats arrive (UDP).  peer_port: its API for other agents (TCP).
    store:         the store's address, "" for the usual file; `store_address` is what it says.
    store_tls, store_login: for a store in etcd that wants them.  store_compaction: alone, always or never.
    capacity:      None: what the machine has.  cgroup_root: None: found.  tls: None: no TCP between agents.
    timing:        what a new cluster begins with.
    """

    host: str
    address: str
    cluster: ClusterMembership
    site: str = "default"
    port: int = shape.PORT
    peer_port: int = shape.PORT
    data_folder: Path = Path(shape.DATA_FOLDER)
    run_folder: Path = Path(shape.RUN_FOLDER)
    vm_folder: Path = Path(shape.VM_FOLDER)
    ram_folder: Path = Path(shape.RAM_FOLDER)
    store: str = ""
    store_tls: StoreTls | None = None
    store_login: StoreLogin | None = None
    store_compaction: str = "alone"
    cgroup_root: Path | None = None
    labels: dict[str, str] = field(default_factory=dict)
    capacity: Capacity | None = None
    datastores: tuple[DatastoreFolder, ...] = ()
    tls: TlsFiles | None = None
    timing: Timing = Timing()
    fencing: Fencing = Fencing()

    @property
    def store_address(self) -> StoreAddress:
        """Where the store is."""
        return parse_store(self.store) if self.store else SqliteAddress(self.data_folder / "store.sqlite")


def parse_agent(text: str | bytes, source: str = "the agent file") -> AgentConfig:
    """Read an agent's configuration from TOML.

    text:   str, or bytes in UTF-8; at most 1 MiB.
    source: what mistakes are told of, usually the file's path.
    Raises AgentFileError with every mistake, and nothing else for any text or bytes.
    """
    return _config(checked_text(text, source, shape.AGENT, _check_agent, AgentFileError))


def read_agent(path: Path = AGENT_FILE) -> AgentConfig:
    """Read an agent's file. It blocks. Raises AgentFileError, also when the file cannot be read."""
    return parse_agent(file_bytes(path, AgentFileError), str(path))


def agent_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 7) of an agent's file, as published in schema/agent.schema.json."""
    return schema_of(shape.AGENT, "agent", "A host of Outlive: what its agent is told about it")


def agent_document(config: AgentConfig) -> dict[str, Any]:
    """Return the document that a configuration is read from, without what is as it would be anyway."""
    usual = AgentConfig(config.host, config.address, config.cluster)
    plain = (
        "site",
        "port",
        "peer_port",
        "data_folder",
        "run_folder",
        "vm_folder",
        "ram_folder",
        "store",
        "store_compaction",
        "cgroup_root",
        "labels",
    )
    document: dict[str, Any] = {"host": config.host, "address": config.address}
    for name in plain:
        value = getattr(config, name)
        if value != getattr(usual, name):
            document[name] = str(value) if isinstance(value, Path) else value
    document["cluster"] = _texts(config.cluster)
    if config.capacity:
        document["capacity"] = {"cpus": config.capacity.cpus, "memory_mib": config.capacity.memory_mib}
    if config.datastores:
        document["datastore"] = [_texts(datastore) for datastore in config.datastores]
    if config.tls:
        document["tls"] = _texts(config.tls)
    if config.store_tls:
        document["store_tls"] = _texts(config.store_tls)
    if config.store_login:
        login = config.store_login
        document["store_login"] = {"user": login.user, "password_file": str(login.password_file)}
        if login.without_tls:
            document["store_login"]["without_tls"] = True
    if timing := {
        one.name: getattr(config.timing, one.name)
        for one in fields(Timing)
        if getattr(config.timing, one.name) != one.default
    }:
        document["timing"] = timing
    if fencing := fencing_document(config.fencing):
        document["fencing"] = fencing
    return document


def _texts(noun: Any) -> dict[str, str]:
    return {one.name: str(value) for one in fields(noun) if (value := getattr(noun, one.name)) is not None}


def _config(values: dict[str, Any]) -> AgentConfig:
    parts = dict(values)
    for name in ("data_folder", "run_folder", "vm_folder", "ram_folder", "cgroup_root"):
        if name in parts:
            parts[name] = Path(parts[name])
    cluster = parts.pop("cluster")
    capacity, tls = parts.pop("capacity", None), parts.pop("tls", None)
    store_tls, login = parts.pop("store_tls", None), parts.pop("store_login", None)
    return AgentConfig(
        cluster=ClusterMembership(cluster["id"], Path(cluster.get("key_file", shape.CLUSTER_KEY_FILE))),
        capacity=Capacity(**capacity) if capacity else None,
        tls=TlsFiles(**{name: Path(path) for name, path in tls.items()}) if tls else None,
        store_tls=StoreTls(**{name: Path(path) for name, path in store_tls.items()}) if store_tls else None,
        store_login=_login(login) if login else None,
        datastores=tuple(DatastoreFolder(one["name"], Path(one["path"])) for one in parts.pop("datastore", ())),
        timing=Timing(**parts.pop("timing", {})),
        fencing=fencing_of(parts.pop("fencing", {})),
        **parts,
    )


def _login(values: Mapping[str, Any]) -> StoreLogin:
    return StoreLogin(values["user"], Path(values["password_file"]), values.get("without_tls", False))


def _check_agent(values: dict[str, Any], given: Mapping[str, Any], problems: Problems) -> None:
    """Note what does not hold between keys that are each right by themselves."""
    for name in ("name", "path"):
        seen: set[str] = set()
        for index, datastore in enumerate(values.get("datastore", ())):
            said = datastore.get(name) if isinstance(datastore, dict) else None
            if said is not None and said in seen:
                problems.add(("datastore", index, name), "is the same as an earlier datastore's", "Give it its own.")
            elif said is not None:
                seen.add(said)
    _check_store(values, problems)
    timing, written = values.get("timing", {}), given.get("timing", {})
    if isinstance(written, dict) and timing.keys() != written.keys():
        return
    check_fencing(values.get("fencing", {}), Timing(**timing), problems)
    for sentence in check(Timing(**timing)):
        named = [key for key in timing if re.search(rf"\b{key}\b", sentence)] or list(timing)
        at = ("timing", named[0]) if len(named) == 1 else ("timing",)
        problems.add(at, f"breaks what safety rests on: {sentence}", "Change it, or the others together with it.")


def _check_store(values: dict[str, Any], problems: Problems) -> None:
    said = values.get("store", "")
    address = parse_store(said) if isinstance(said, str) and said else None
    tls, login = values.get("store_tls"), values.get("store_login")
    in_etcd = isinstance(address, EtcdAddress)
    if isinstance(tls, dict):
        if not (isinstance(address, EtcdAddress) and address.tls):
            problems.add(("store_tls",), "is of no use: the store is not at etcds://", "Remove it, or correct `store`.")
        if ("certificate" in tls) != ("key" in tls):
            problems.add(("store_tls",), "has only one of `certificate` and `key`", "Name both, or none.")
    if isinstance(login, dict) and not in_etcd:
        problems.add(("store_login",), "is of no use: the store is not in etcd", "Remove it, or correct `store`.")
    exposed = isinstance(address, EtcdAddress) and not address.private
    if isinstance(login, dict) and exposed and login.get("without_tls") is not True:
        fix = "Use etcds://, or write without_tls = true if nobody can listen on the way."
        problems.add(("store_login",), "would send the password to other machines for all to read", fix)
