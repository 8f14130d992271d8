"""A lab from its beginning to its end: up, broken in every way, down, and cleared up whatever happened before.

Everything that is made has its name from the plan, and the plan is on disk before anything is made: so `down` works
on a lab that is whole, half made, or left behind by a crash, and never touches anything else.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from outlive.agent import founding
from outlive.cluster.timing import Timing
from outlive.errors import RefusedForSafety, UsageInvalid

from . import faults, hosts, members, network, storage, underlay
from .plan import SQLITE, LabPlan, known, labs_folder, load, plan, save

Progress = Callable[[str], None]


def _silent(step: str) -> None:
    """Tell nobody."""


class Lab:
    """One lab. Its hosts are named as in the plan; every method returns when what it says is so."""

    def __init__(self, planned: LabPlan) -> None:
        self.plan = planned

    @classmethod
    def open(cls, name: str) -> "Lab":
        """A lab that is there. Raises LabMissing."""
        return cls(load(name))

    @classmethod
    def up(
        cls,
        name: str = "lab",
        count: int = 3,
        sites: int = 1,
        progress: Progress = _silent,
        timing: Timing | None = None,
        store: str = SQLITE,
    ) -> "Lab":
        """Make a lab and switch all its hosts on.

        timing: what its hosts agree on, if not what all others do.
        store:  SQLITE, a file beside the network, or ETCD, three members of the lab's own within it.
        Raises Refused when a lab of that name runs; one that was left behind by a crash is cleared away first.
        On any failure, Ctrl-C too, nothing of it is left.
        """
        if name in known():
            old = cls.open(name)
            if any(hosts.is_on(old.plan, host.name) for host in old.plan.hosts):
                raise RefusedForSafety(
                    f"The lab {name!r} is up already.",
                    remedy=f"use it, or end it with `outlive lab down --name {name}`",
                )
            progress("clearing away what an earlier lab left")
            old.down()
        lab = cls(plan(name, count, sites, store))
        save(lab.plan)
        try:
            lab._make(progress, timing or Timing())
        except BaseException:
            lab.down()
            raise
        return lab

    def _make(self, progress: Progress, timing: Timing) -> None:
        progress("keys and certificates")
        founding.make_key(self.plan.root / "cluster.key")
        authority = founding.Authority(self.plan.root / "tls")
        authority.make(self.plan.cluster)
        for host in self.plan.hosts:
            authority.issue(host.name, host.address)
        progress("datastore")
        hosts.mount_memory(self.plan.memory, hosts.DATA_SIZE)
        founding.found_datastore("shared", self.plan.datastore, self.plan.cluster)
        storage.start(self.plan)
        progress("network")
        network.make(self.plan)
        progress("store")
        for member in self.plan.members:
            members.start(self.plan, member)
        members.found(replace(hosts.agent_config(self.plan, self.plan.hosts[0].name), timing=timing), self.plan.client)
        for host in self.plan.hosts:
            hosts.mount_memory(self.plan.host_folder(host.name) / "data", hosts.DATA_SIZE)
        progress(f"{len(self.plan.hosts)} hosts")
        for host in self.plan.hosts:
            hosts.switch_on(self.plan, host.name)

    def down(self) -> None:
        """End the lab: every process, group, namespace, mount and file of it. Safe to repeat."""
        for host in self.plan.hosts:
            with suppress(FileNotFoundError):
                hosts.kill(self.plan, host.name)
        with suppress(FileNotFoundError):
            hosts.kill(self.plan)
        hosts.remove_groups(self.plan)
        faults.lift(self.plan)
        network.unmake(self.plan)
        hosts.unmount_all(self.plan.root)
        hosts.forget_memory(self.plan)
        shutil.rmtree(self.plan.root, ignore_errors=True)
        with suppress(OSError):
            labs_folder().rmdir()

    def kill(self, name: str) -> None:
        """A power cut: the link goes first, so that nothing said for dying processes gets out."""
        self._known(name)
        network.cut_power(self.plan, name)
        if name in self.plan.members:
            hosts.kill(self.plan, name)
            return
        hosts.kill(self.plan, name)
        hosts.remove_groups(self.plan, name)
        hosts.forget_memory(self.plan, name)
        network.reset(self.plan, name)

    def start(self, name: str) -> None:
        """Switch a host on again: its own disk is as it was, everything else is gone."""
        self._known(name)
        if hosts.is_on(self.plan, self._known(name)):
            raise RefusedForSafety(f"Host {name} of the lab is on already.")
        if name in self.plan.members:
            network.heal(self.plan, [name])
            members.start(self.plan, name)
            return
        network.heal(self.plan, [name])
        hosts.switch_on(self.plan, name)

    def pause(self, name: str, *, agent_only: bool = False) -> None:
        """Stop a host where it stands, all of it or just its agent."""
        if name in self.plan.members:
            hosts.freeze(self.plan, name, frozen=True)
            return
        self.plan.host(name)
        hosts.pause(self.plan, name, only=hosts.AGENT if agent_only else "")

    def resume(self, name: str, *, agent_only: bool = False) -> None:
        """Let it go on."""
        if name in self.plan.members:
            hosts.freeze(self.plan, name, frozen=False)
            return
        self.plan.host(name)
        hosts.resume(self.plan, name, only=hosts.AGENT if agent_only else "")

    def isolate(self, name: str) -> None:
        """Cut a host off from every other."""
        network.isolate(self.plan, self._known(name))

    def cut_store(self, name: str) -> None:
        """Cut a host off from the store alone; `heal` mends it. Raises UsageInvalid where the store is a file."""
        if not self.plan.members:
            raise UsageInvalid(
                "The store of this lab is a file, which no network cut reaches.",
                remedy="make the lab with `--store etcd`",
            )
        host = self.plan.host(name).name
        underlay.cut(self.plan, [host], self.plan.members)
        underlay.cut(self.plan, self.plan.members, [host])

    def partition(self, *names: str, with_client: bool = False) -> None:
        """Cut these hosts off from all others, but not from each other."""
        network.partition(self.plan, [self.plan.host(name).name for name in names], with_client=with_client)

    def partition_sites(self, *sites: str, with_client: bool = False) -> None:
        """Cut all hosts of these sites off from those of the others; the links within and among them stay."""
        self.partition(*self._in_sites(sites), with_client=with_client)

    def cut_link(self, source: str, target: str) -> None:
        """Let nothing from one host reach the other by its own address; the way back stays. `heal` mends it."""
        underlay.cut(self.plan, [self.plan.host(source).name], [self.plan.host(target).name])

    def cut_sites(self, source: str, target: str) -> None:
        """Let nothing from one site's hosts reach those of the other by their own addresses; the way back stays."""
        underlay.cut(self.plan, self._in_sites([source]), self._in_sites([target]))

    def slow_sites(self, *, delay_ms: float = 0.0, loss_percent: float = 0.0, rate_mbit: float | None = None) -> None:
        """Make the links between sites slow; without arguments as fast as they go. See `underlay.shape`."""
        underlay.shape(self.plan, delay_ms=delay_ms, loss_percent=loss_percent, rate_mbit=rate_mbit)

    def _known(self, name: str) -> str:
        """The name of a host or of a member of the store. Raises UsageInvalid for others."""
        return name if name in self.plan.members else self.plan.host(name).name

    def _in_sites(self, sites: Iterable[str]) -> list[str]:
        """The hosts in these sites. Raises UsageInvalid for a site that the lab has not."""
        chosen = list(sites)
        if strangers := [site for site in chosen if site not in self.plan.sites]:
            raise UsageInvalid(f"The lab has no {strangers[0]}.", remedy=f"its sites are {', '.join(self.plan.sites)}")
        return [host.name for host in self.plan.hosts if host.site in chosen]

    def heal(self, *names: str) -> None:
        """Connect these hosts again, all that are on by default, and lift what else was done to them."""
        everybody = [*(host.name for host in self.plan.hosts), *self.plan.members]
        chosen = names or tuple(name for name in everybody if hosts.is_on(self.plan, name))
        network.heal(self.plan, chosen)
        for name in (name for name in chosen if name not in self.plan.members):
            faults.free_disk(self.plan, name)
            if (Path("/sys/fs/cgroup/blkio/outlive-lab") / self.plan.name / name).is_dir():
                faults.slow_datastore(self.plan, name, None)

    def fill_disk(self, name: str) -> int:
        """Fill a host's own disk; returns the bytes it took."""
        return faults.fill_disk(self.plan, self.plan.host(name).name)

    def slow_datastore(self, name: str, bytes_per_s: int) -> None:
        """Make a host's datastore slow; a few bytes a second is as good as hung."""
        faults.slow_datastore(self.plan, self.plan.host(name).name, bytes_per_s)

    def in_client(self, *command: str, **options: object) -> "subprocess.Popen[bytes]":
        """Start a program where the clients are; the caller ends it."""
        prefix = ["nsenter", f"--net=/run/netns/{self.plan.client}", "--"]
        return subprocess.Popen([*prefix, *command], **options)  # type: ignore[call-overload,no-any-return]

    def on(self) -> list[str]:
        """The hosts that are switched on."""
        return [host.name for host in self.plan.hosts if hosts.is_on(self.plan, host.name)]
