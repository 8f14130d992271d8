"""The lab's hosts: their process trees, switched on, cut off from power, stopped and let go on.

All of a host's processes are in one control group (version 2), which is what makes a power cut whole: the kernel kills
everything in it at once. Its guard has a group of its own below, so that after a pause it is let go first, as a
real guard's real-time priority makes it run first on a machine that wakes up.
"""

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from outlive.cluster.host import Capacity
from outlive.config.agent_file import AgentConfig, ClusterMembership, DatastoreFolder, TlsFiles, agent_document
from outlive.config.fencing import Fencing, Method
from outlive.config.store_address import ETCD_PORT
from outlive.config.toml_writer import toml_text
from outlive.errors import Failed
from outlive.native import outlive_command

from .plan import PEER_PORT, PORT, LabPlan, labs_folder, member_address

GUARD, AGENT, WORKLOADS = "guard", "agent", "workloads"
SETTLE_S = 30.0
START_S = 0.05
GUARD_FIRST_S = 20.0
PF_EXITING = 0x4
DATA_SIZE = "64m"
CAPACITY = Capacity(4, 4096)


def control_groups() -> Path:
    """The mount point of control groups version 2. Raises Failed when this machine has none."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.split()[0] == "cgroup2":
            return Path(fields.split()[4])
    raise Failed(
        "This machine has no control groups of version 2.",
        remedy="mount them: mkdir -p /run/cgroup2 && mount -t cgroup2 none /run/cgroup2",
    )


def group(lab: LabPlan, host: str = "") -> Path:
    """The control group of a host, or of the whole lab."""
    return control_groups() / "outlive-lab" / lab.name / host


def ram_folder(lab: LabPlan, host: str = "") -> Path:
    """Where a host's virtual machines have their memory, gone with a power cut; without a host, that of all."""
    return Path("/dev/shm/outlive-lab") / lab.name / host  # noqa: S108 - a tmpfs, in a folder of our own


def forget_memory(lab: LabPlan, host: str = "") -> None:
    """What a power cut does to memory: nothing of it stays."""
    folder = ram_folder(lab, host)
    shutil.rmtree(folder, ignore_errors=True)
    if not host:
        with suppress(OSError):
            folder.parent.rmdir()


def write_config(lab: LabPlan, name: str) -> Path:
    """Write a host's agent file and make its folders; what is in its data folder stays."""
    folder = lab.host_folder(name)
    for path in (folder / "data", folder / "vms", lab.run_folder(name), ram_folder(lab, name)):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    document = agent_document(agent_config(lab, name))
    path = folder / "agent.toml"
    path.write_text("# Written by the lab; a change is lost with the next start.\n" + toml_text(document))
    return path


def agent_config(lab: LabPlan, name: str) -> AgentConfig:
    """What a host's agent file says."""
    host, folder = lab.host(name), lab.host_folder(name)
    return AgentConfig(
        host=name,
        address=host.address,
        cluster=ClusterMembership(lab.cluster, lab.root / "cluster.key"),
        site=host.site,
        port=PORT,
        peer_port=PEER_PORT,
        data_folder=folder / "data",
        run_folder=lab.run_folder(name),
        vm_folder=folder / "vms",
        ram_folder=ram_folder(lab, name),
        store=_store(lab),
        cgroup_root=group(lab, name) / WORKLOADS,
        capacity=CAPACITY,
        datastores=(DatastoreFolder("shared", lab.datastore),),
        tls=TlsFiles(lab.root / "tls" / "ca.pem", lab.root / "tls" / f"{name}.pem", lab.root / "tls" / f"{name}.key"),
        fencing=Fencing(methods=(_power_switch(lab),)),
    )


def _power_switch(lab: LabPlan) -> Method:
    """A fence method that cuts the power of this lab's hosts, as `outlive lab kill` does."""
    here = ("/usr/bin/env", f"OUTLIVE_LABS={labs_folder()}")
    off, ask = (outlive_command("lab", verb, "--name", lab.name, "--", "{host}") for verb in ("kill", "power"))
    return Method("lab-power", command=(*here, *off), status=(*here, *ask), limit_s=20.0)


def _store(lab: LabPlan) -> str:
    """The store as all hosts name it."""
    if not lab.members:
        return f"sqlite://{lab.store}"
    outside = lab.outside_store
    if outside is not None:
        way = member_address(lab.members[0])
        ends = ",".join(f"{way}:{ETCD_PORT + number}" for number in range(len(outside.endpoints)))
        return f"etcd://{ends}{outside.prefix}"
    ends = ",".join(f"{member_address(member)}:{ETCD_PORT}" for member in lab.members)
    return f"etcd://{ends}/{lab.name}"


def switch_on(lab: LabPlan, name: str) -> None:
    """Start a host's agent under its keeper, as a child of nobody here. Raises Failed when it ends at once."""
    for part in (GUARD, AGENT, WORKLOADS):
        (group(lab, name) / part).mkdir(parents=True, exist_ok=True)
    config = write_config(lab, name)
    procs = group(lab, name) / AGENT / "cgroup.procs"
    namespace = f"/run/netns/{lab.host(name).namespace}"
    console = lab.host_folder(name) / "console.log"
    with console.open("ab") as log:
        done = subprocess.run(
            [
                "/bin/sh",
                "-c",
                f'echo $$ > {procs} && exec setsid --fork nsenter --net={namespace} -- "$@"',
                "sh",
                *outlive_command("agent", "--keep", "--config", str(config)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            check=False,
        )
    time.sleep(START_S)
    if done.returncode or not is_on(lab, name):
        raise Failed(f"Host {name} of the lab did not start.", cause=_tail(console), remedy="see `outlive doctor`")


def _tail(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()[-500:]
    except OSError:
        return ""


def pids(lab: LabPlan, name: str, part: str = "") -> list[int]:
    """The processes of a host, or of one part of it."""
    found: list[int] = []
    # Groups vanish while they are looked at, which `os.walk` bears.
    for folder, _, _ in os.walk(group(lab, name) / part):
        with suppress(OSError):
            found += [int(line) for line in (Path(folder) / "cgroup.procs").read_text().split()]
    return found


def kill(lab: LabPlan, name: str = "") -> None:
    """Kill every process of a host, or of the lab, at once; returns when all are gone."""
    root = group(lab, name)
    deadline = time.monotonic() + SETTLE_S
    while root.is_dir() and (name == "" or pids(lab, name)) and _populated(root):
        (root / "cgroup.freeze").write_text("0")
        (root / "cgroup.kill").write_text("1")
        if time.monotonic() > deadline:
            raise Failed(f"Processes in {root} cannot be killed.", cause="they may hang in the kernel")
        time.sleep(0.01)


def _populated(root: Path) -> bool:
    try:
        return "populated 1" in (root / "cgroup.events").read_text()
    except OSError:
        return False


def remove_groups(lab: LabPlan, name: str = "") -> None:
    """Remove the empty control groups of a host, or of the lab."""
    root = group(lab, name)
    for folder, _, _ in os.walk(root, topdown=False):
        remove_empty(Path(folder))
    if not name:
        with suppress(OSError):
            root.parent.rmdir()


def remove_empty(folder: Path) -> None:
    """Remove a control group, once the kernel has let go of what was killed in it. Raises Failed."""
    deadline = time.monotonic() + SETTLE_S
    while folder.is_dir():
        try:
            folder.rmdir()
        except OSError as error:
            if time.monotonic() > deadline:
                raise Failed(f"The control group {folder} cannot be removed.", cause=str(error)) from error
            time.sleep(0.02)


def pause(lab: LabPlan, name: str, *, only: str = "") -> None:
    """Stop all of a host where it stands, or one part of it.

    An agent caught in the middle of a write would hold the shared store's lock, as no machine of its own could; it
    is let go on and stopped again until it holds none.
    """
    parts = [only] if only else [WORKLOADS, AGENT, GUARD]
    for _ in range(100):
        for part in parts:
            _freeze(group(lab, name) / part, frozen=True)
        if not _store_is_locked(lab):
            return
        _freeze(group(lab, name) / AGENT, frozen=False)
        time.sleep(0.01)
    raise Failed(f"Host {name} could not be paused without holding the store's lock.", remedy="try again")


def resume(lab: LabPlan, name: str, *, only: str = "") -> None:
    """Let a paused host go on: its guard first, which on a machine of its own has real-time priority, then the rest."""
    before = {pid: _sleeps(pid) for pid in pids(lab, name, GUARD)}
    for part in [only] if only else [GUARD, WORKLOADS, AGENT]:
        _freeze(group(lab, name) / part, frozen=False)
        if part == GUARD:
            deadline = time.monotonic() + GUARD_FIRST_S
            while time.monotonic() < deadline and not all(_had_its_turn(pid, slept) for pid, slept in before.items()):
                time.sleep(0.002)


def _had_its_turn(pid: int, slept: int) -> bool:
    """Whether a process did what it had to, and waits again, since it had gone to sleep so many times."""
    stat = _stat(pid)
    return not stat or (stat[0] == "S" and _sleeps(pid) > slept)


def _sleeps(pid: int) -> int:
    """How many times a process has gone to sleep of its own will."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def freeze(lab: LabPlan, name: str, *, frozen: bool) -> None:
    """Stop all of a group where it stands, or let it go on."""
    _freeze(group(lab, name), frozen=frozen)


def _freeze(folder: Path, *, frozen: bool) -> None:
    (folder / "cgroup.freeze").write_text("1" if frozen else "0")
    wanted = f"frozen {int(frozen)}"
    deadline = time.monotonic() + SETTLE_S
    while wanted not in (folder / "cgroup.events").read_text() and time.monotonic() < deadline:
        time.sleep(0.002)


def _store_is_locked(lab: LabPlan) -> bool:
    if not lab.store.exists():
        return False
    connection = sqlite3.connect(lab.store, timeout=0.3, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError:
        return True
    finally:
        connection.close()
    return False


def is_dying(pid: int) -> bool:
    """Whether a process is past running its own code: on its way out, or told by the kernel that SIGKILL ends it.

    Both are read at one moment (proc(5), stat: flags and exit_code, which is the group's from the kill on, Linux
    5.17): the signal itself is no longer pending some time before the process is marked as exiting.
    """
    fields = _stat(pid)
    return not fields or bool(int(fields[6]) & PF_EXITING) or int(fields[49]) & 0x7F == signal.SIGKILL


def _stat(pid: int) -> list[str]:
    """What the kernel says of a process, from its state on; nothing when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def is_on(lab: LabPlan, name: str) -> bool:
    """Whether anything of the host runs."""
    return _populated(group(lab, name))


def mount_memory(path: Path, size: str) -> None:
    """Mount a file system in memory of limited size, unless one is there."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not os.path.ismount(path):
        _run("mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "outlive-lab", str(path))


def unmount_all(root: Path) -> None:
    """Unmount whatever is mounted below a folder."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in sorted((each for each in mounts if Path(each).is_relative_to(root)), reverse=True):
        _run("umount", "-l", mount)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise Failed(f"`{' '.join(command)}` failed.", cause=done.stderr.strip(), remedy="the lab needs root")
