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
from .problems import FileInvalid, Problems
from .reading import checked_text, file_bytes
from .schemas import schema_of

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
class AgentConfig:
    """All that an agent is told about its host.

    address, port: where heartbeats arrive (UDP).  peer_port: its API for other agents (TCP).
    store:         sqlite:///PATH; `store_path` is that path.
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
    cgroup_root: Path | None = None
    labels: dict[str, str] = field(default_factory=dict)
    capacity: Capacity | None = None
    datastores: tuple[DatastoreFolder, ...] = ()
    tls: TlsFiles | None = None
    timing: Timing = Timing()

    @property
    def store_path(self) -> Path:
        """The file of the SQLite store."""
        if not self.store:
            return self.data_folder / "store.sqlite"
        return Path("/" + self.store.removeprefix(shape.STORE_SCHEME).lstrip("/"))


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
    if timing := {
        one.name: getattr(config.timing, one.name)
        for one in fields(Timing)
        if getattr(config.timing, one.name) != one.default
    }:
        document["timing"] = timing
    return document


def _texts(noun: Any) -> dict[str, str]:
    return {one.name: str(getattr(noun, one.name)) for one in fields(noun)}


def _config(values: dict[str, Any]) -> AgentConfig:
    parts = dict(values)
    for name in ("data_folder", "run_folder", "vm_folder", "ram_folder", "cgroup_root"):
        if name in parts:
            parts[name] = Path(parts[name])
    cluster = parts.pop("cluster")
    capacity, tls = parts.pop("capacity", None), parts.pop("tls", None)
    return AgentConfig(
        cluster=ClusterMembership(cluster["id"], Path(cluster.get("key_file", shape.CLUSTER_KEY_FILE))),
        capacity=Capacity(**capacity) if capacity else None,
        tls=TlsFiles(**{name: Path(path) for name, path in tls.items()}) if tls else None,
        datastores=tuple(DatastoreFolder(one["name"], Path(one["path"])) for one in parts.pop("datastore", ())),
        timing=Timing(**parts.pop("timing", {})),
        **parts,
    )


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
    timing, written = values.get("timing", {}), given.get("timing", {})
    if isinstance(written, dict) and timing.keys() != written.keys():
        return
    for sentence in check(Timing(**timing)):
        named = [key for key in timing if re.search(rf"\b{key}\b", sentence)] or list(timing)
        at = ("timing", named[0]) if len(named) == 1 else ("timing",)
        problems.add(at, f"breaks what safety rests on: {sentence}", "Change it, or the others together with it.")
