"""Making one machine a cluster of one host: its file, key, certificate, store and datastore.

The agent's file is written first and whole, and everything else follows from it: so whoever was interrupted goes on
from there, and saying it twice makes nothing anew. Nothing that exists is overwritten. Starting the agent is in
`outset`.
"""

import asyncio
import fcntl
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from outlive.cluster.host import checked_name
from outlive.config.agent_file import (
    AGENT_FILE,
    AgentConfig,
    ClusterMembership,
    DatastoreFolder,
    StoreLogin,
    StoreTls,
    TlsFiles,
    agent_document,
    parse_agent,
    read_agent,
)
from outlive.config.agent_shape import PORT
from outlive.config.toml_writer import toml_text
from outlive.errors import Failed, UsageInvalid
from outlive.runtime import cgroup

from . import founding

DATASTORE = "local"
FIRST_LINE = "# Written by `outlive up`, which will not write it again: change it, then start the agent again.\n"
LOCKED_WITHIN_S = 60.0

Progress = Callable[[str], None]


class HostDiffers(UsageInvalid):
    """This machine is set up already, and not as was asked for now."""

    id = "up.differs"


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything of a host goes."""

    config: Path
    key: Path
    tls: Path
    data: Path
    run: Path
    datastore: Path
    own_cgroup: bool = False

    @classmethod
    def installed(cls) -> "Places":
        """Where an installed host has it."""
        etc, var = AGENT_FILE.parent, Path("/var/lib/outlive")
        return cls(AGENT_FILE, etc / "cluster.key", etc / "tls", var, Path("/run/outlive"), var / "datastore")

    @classmethod
    def below(cls, folder: Path) -> "Places":
        """All of it in one folder, beside whatever else this machine is."""
        folder = folder.absolute()
        return cls(
            folder / "agent.toml", folder / "cluster.key", folder / "tls", folder / "data", folder / "run",
            folder / "datastore", own_cgroup=True,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for; None: whatever is there, or else the usual."""

    name: str | None = None
    address: str | None = None
    site: str | None = None
    port: int | None = None
    store: str | None = None
    store_tls: StoreTls | None = None
    store_login: StoreLogin | None = None


def found_host(places: Places, wish: Wish, progress: Progress) -> tuple[AgentConfig, bool]:
    """Make what is not there yet; return what the host's file says, and whether it was written now. It blocks.

    Raises HostDiffers when the host is set up otherwise than wished, AgentFileError when its file has mistakes.
    """
    for folder in (places.config.parent, places.data, places.run, places.datastore):
        # Passed through by workloads that run as other users, on the way to their data.
        folder.mkdir(parents=True, exist_ok=True, mode=0o711)
    with _alone(places.config.parent):
        fresh = not places.config.exists()
        if fresh:
            progress(f"writing {places.config}")
            _write(places.config, _planned(places, wish))
        config = read_agent(places.config)
        _check(config, wish, places.config)
        progress("key and certificate")
        founding.make_key(config.cluster.key_file)
        _certify(config)
        progress("store and datastore")
        asyncio.run(founding.found_store(config))
        for datastore in config.datastores:
            if datastore.path == places.datastore:
                founding.found_datastore(datastore.name, datastore.path, config.cluster.id)
    return config, fresh


def machine_name() -> str:
    """This machine's own name, made a valid one for a host."""
    first = socket.gethostname().lower().partition(".")[0]
    return re.sub(r"[^a-z0-9-]+", "-", first).strip("-")[:63].strip("-") or "host"


def _planned(places: Places, wish: Wish) -> AgentConfig:
    name = checked_name(wish.name, "host") if wish.name else machine_name()
    cluster = secrets.token_hex(8)
    own = None
    if places.own_cgroup:
        unified = cgroup.find_or_mount().unified
        own = None if unified is None else unified / f"outlive-{cluster}" / "workloads"
    usual = Places.installed()
    return AgentConfig(
        host=name,
        address=wish.address or "127.0.0.1",
        site=wish.site or "default",
        port=wish.port or PORT,
        peer_port=wish.port or PORT,
        cluster=ClusterMembership(cluster, places.key),
        store=wish.store or "",
        store_tls=wish.store_tls,
        store_login=wish.store_login,
        data_folder=places.data,
        run_folder=places.run if places != usual else usual.run,
        cgroup_root=own,
        datastores=(DatastoreFolder(DATASTORE, places.datastore),),
        tls=TlsFiles(places.tls / "ca.pem", places.tls / f"{name}.pem", places.tls / f"{name}.key"),
    )


def _write(path: Path, config: AgentConfig) -> None:
    """Write the file whole or not at all; what cannot be read back is not written."""
    text = FIRST_LINE + "\n" + toml_text(agent_document(config))
    parse_agent(text, "what was asked for")
    beside = path.with_name(path.name + ".new")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)


def _check(config: AgentConfig, wish: Wish, path: Path) -> None:
    for what, wished, stands in (
        ("name", wish.name, config.host),
        ("address", wish.address, config.address),
        ("site", wish.site, config.site),
        ("port", wish.port, config.port),
        ("store", wish.store, config.store),
        ("store-ca", _ca(wish.store_tls), _ca(config.store_tls)),
        ("store-user", wish.store_login and wish.store_login.user, config.store_login and config.store_login.user),
    ):
        if wished is not None and wished != stands:
            raise HostDiffers(
                f"This host is set up already, and its {what} is {stands}, not {wished}.",
                cause=f"{path} says so",
                remedy=f"leave --{what} out",
            )


def _ca(tls: StoreTls | None) -> Path | None:
    return None if tls is None else tls.ca


def _certify(config: AgentConfig) -> None:
    """Give the host a certificate where we hold the authority's key, or none is there at all."""
    tls = config.tls
    if tls is None or tls.certificate.exists():
        return
    authority = founding.Authority(tls.ca.parent)
    authority.make(config.cluster.id)
    authority.issue(config.host, config.address)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold off another `up` for the same place; the kernel lets go when this process ends, however it does."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + LOCKED_WITHIN_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise Failed(f"Another `outlive up` works in {folder}.", remedy="wait for it, or end it") from error
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)
