"""The members of a lab's own etcd: three, each a network namespace behind the hosts' router, so that cuts reach them.

They are no hosts: no agent runs there, and what they keep outlasts a power cut as a disk would. Founding the lab's
store is here too, since an etcd within the lab's network is reached only from there.
"""

import asyncio
import shutil
import subprocess
import sys
import threading
import time

from outlive.agent import founding
from outlive.config.agent_file import AgentConfig
from outlive.config.store_address import ETCD_PORT
from outlive.errors import ClusterUnreachable, Failed

from . import hosts
from .namespaces import enter
from .plan import LabPlan, member_address

PEERS_PORT = 2380
SIZE = "640m"
"""etcd sets 64 MiB aside for each file of its log."""

FOUNDED_S, AGAIN_S = 60.0, 0.2


def start(lab: LabPlan, member: str) -> None:
    """Start a member, or the way to an etcd outside; it serves a moment later. Raises Failed where there is no etcd."""
    folder = lab.member_folder(member)
    if lab.outside_store is not None:
        folder.mkdir(parents=True, exist_ok=True)
        _begin(lab, member, [sys.executable, "-m", "outlive.lab.relay", lab.name, member])
        return
    program = shutil.which("etcd")
    if program is None:
        raise Failed("There is no etcd on this machine.", remedy="apt-get install etcd-server")
    hosts.mount_memory(folder, SIZE)
    own = f"http://{member_address(member)}"
    everybody = ",".join(f"{each}=http://{member_address(each)}:{PEERS_PORT}" for each in lab.members)
    command = [
        program, "--name", member, "--data-dir", str(folder / "data"), "--logger", "zap",
        "--listen-client-urls", f"{own}:{ETCD_PORT}", "--advertise-client-urls", f"{own}:{ETCD_PORT}",
        "--listen-peer-urls", f"{own}:{PEERS_PORT}", "--initial-advertise-peer-urls", f"{own}:{PEERS_PORT}",
        "--initial-cluster", everybody, "--initial-cluster-token", lab.cluster,
        "--max-wals", "2", "--snapshot-count", "20000",
    ]  # fmt: skip
    _begin(lab, member, ["nsenter", f"--net=/run/netns/{lab.member_namespace(member)}", "--", *command])


def _begin(lab: LabPlan, member: str, command: list[str]) -> None:
    """Start a program in the member's group, as a child of nobody here."""
    group = hosts.group(lab, member)
    group.mkdir(parents=True, exist_ok=True)
    line = f'echo $$ > {group / "cgroup.procs"} && exec setsid --fork "$@"'
    with (lab.member_folder(member) / "member.log").open("ab") as log:
        subprocess.run(
            ["/bin/sh", "-c", line, "sh", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            check=True,
        )


def found(config: AgentConfig, namespace: str) -> None:
    """Found the store that a host's file names, from within a namespace, as soon as it is there."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            enter(namespace)
            asyncio.run(_found(config))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="founding")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


async def _found(config: AgentConfig) -> None:
    deadline = time.monotonic() + FOUNDED_S
    while True:
        try:
            return await founding.found_store(config)
        except ClusterUnreachable:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(AGAIN_S)
