"""Nothing of a workload hides, limits are held where the kernel can hold them, and it is said where it cannot."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from outlive.cluster.workload import Limits
from outlive.runtime import cgroup
from outlive.runtime.cgroup import CgroupFailed, Mounts, Tree

from ..native.guarding import clear, sleeper

WITHIN_S = 60.0


@pytest.fixture
def tree() -> Iterator[Tree]:
    mounts = cgroup.find_or_mount()
    assert mounts.unified is not None
    tree = Tree(mounts.unified / f"outlive-test-{os.getpid()}-cgroup", mounts)
    yield tree
    clear(tree.root)


def test_mounts_are_found_in_every_shape_that_hosts_have() -> None:
    unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
    assert cgroup.parse_mountinfo(unified) == Mounts(Path("/sys/fs/cgroup"), {})
    hybrid = (
        "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
        "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:1 master:2 - cgroup cgroup rw,cpu,cpuacct\n"
        "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
        "40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
        "42 31 0:38 / /run/with\\040space/deeper/cgroup rw,relatime - cgroup2 cgroup2 rw\n"
    )
    assert cgroup.parse_mountinfo(hybrid) == Mounts(
        Path("/sys/fs/cgroup/unified"),
        {"cpu": Path("/sys/fs/cgroup/cpu,cpuacct"), "memory": Path("/sys/fs/cgroup/memory")},
    )
    spaced = hybrid.splitlines()[-1]
    assert cgroup.parse_mountinfo(spaced).unified == Path("/run/with space/deeper/cgroup")
    assert cgroup.parse_mountinfo("") == cgroup.parse_mountinfo("nonsense - \n x") == Mounts(None, {})


def test_without_a_mount_one_of_our_own_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "parse_mountinfo", lambda _: Mounts(None, {}))
    own = tmp_path / "cgroup"
    try:
        assert cgroup.find_or_mount(own) == Mounts(own, {})
        assert (own / "cgroup.procs").exists()
    finally:
        os.system(f"umount '{own}'")
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(CgroupFailed) as caught:
        cgroup.find_or_mount(blocked / "cgroup")
    assert caught.value.remedy


async def test_a_workload_has_a_cgroup_for_each_module_and_one_for_its_runners(tree: Tree) -> None:
    tree.make("web", ("front", "runner"))
    tree.make("web", ("front", "back"))
    assert {path.name for path in tree.workload("web").iterdir() if path.is_dir()} == {
        "_runner", "front", "runner", "back",
    }  # fmt: skip
    assert tree.runner("web") == tree.root / "web" / "_runner"
    await tree.remove("web", WITHIN_S)
    assert not tree.workload("web").exists()
    await tree.remove("web", WITHIN_S)


async def test_everything_below_can_be_stopped_let_go_and_killed(tree: Tree) -> None:
    tree.make("web", ("front",))
    workload = tree.workload("web")
    assert await cgroup.wait_empty(workload, 0.0)
    with sleeper(tree.module("web", "front")) as process:
        assert cgroup.populated(workload)
        cgroup.freeze(workload)
        assert await settled(workload, frozen=True)
        cgroup.thaw(workload)
        assert await settled(workload, frozen=False)
        assert not await cgroup.wait_empty(workload, 0.05)
        with pytest.raises(CgroupFailed):
            await tree.remove("web", 0.05)
        cgroup.freeze(workload)
        cgroup.kill(workload)
        assert await cgroup.wait_empty(workload, WITHIN_S)
        assert process.wait(WITHIN_S) == -signal.SIGKILL
    await tree.remove("web", WITHIN_S)
    cgroup.kill(workload)
    assert await cgroup.wait_empty(workload, 0.0)


def test_without_cgroup_kill_everything_listed_below_is_killed(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    write = cgroup._write

    def old_kernel(file: Path, text: str) -> None:
        if file.name == "cgroup.kill":
            raise FileNotFoundError(file)
        write(file, text)

    monkeypatch.setattr(cgroup, "_write", old_kernel)
    tree.make("web", ("front",))
    with sleeper(tree.module("web", "front")) as one, sleeper(tree.runner("web") / "deeper") as other:
        cgroup.kill(tree.workload("web"))
        assert (one.wait(WITHIN_S), other.wait(WITHIN_S)) == (-signal.SIGKILL, -signal.SIGKILL)


async def settled(folder: Path, *, frozen: bool) -> bool:
    for _ in range(1000):
        if cgroup.frozen(folder) == frozen:
            return True
        await asyncio.sleep(0.01)
    return False


async def test_cgroups_that_a_module_made_below_its_own_are_removed_too(tree: Tree) -> None:
    tree.make("web", ("front",))
    (tree.module("web", "front") / "one" / "two").mkdir(parents=True)
    await tree.remove("web", WITHIN_S)
    assert not tree.workload("web").exists()


async def test_limits_are_held_by_whatever_hierarchy_has_the_controller(tree: Tree) -> None:
    tree.make("web", ("front",))
    missing = tree.limit("web", "front", Limits(cpus=0.5, memory_mib=64, processes=20))
    held: dict[str, str] = {}
    for folder in tree.entrances("web", "front"):
        for name in ("cpu.max", "cpu.cfs_quota_us", "memory.max", "memory.limit_in_bytes", "pids.max"):
            if (folder / name).exists():
                held[name.partition(".")[0]] = (folder / name).read_text().split()[0]
    assert len(held) + len(missing) == 3
    assert held == {
        name: value
        for name, value in {"cpu": "50000", "memory": str(64 * 1024 * 1024), "pids": "20"}.items()
        if name in held
    }
    tree.limit("web", "front", Limits())
    lifted = [
        (folder / name).read_text().strip()
        for folder in tree.entrances("web", "front")
        for name in ("cpu.cfs_quota_us", "pids.max")
        if (folder / name).exists()
    ]
    assert set(lifted) <= {"-1", "max"}
    with sleeper(tree.module("web", "front")):
        pass
    await tree.remove("web", WITHIN_S)
    assert tree.entrances("web", "front") == (tree.module("web", "front"),)
    for mount in (tree.mounts.legacy or {"": tree.root}).values():
        assert not list(mount.glob(f"**/{tree.root.name}/*"))


def fake(root: Path, *folders: str, controllers: str) -> Tree:
    """A tree on plain files that looks like cgroup2 with these controllers at its top."""
    for folder in ("", *folders):
        path = root / folder
        path.mkdir(parents=True, exist_ok=True)
        (path / "cgroup.controllers").write_text(controllers)
        (path / "cgroup.subtree_control").write_text("")
        for name in ("cpu.max", "memory.max", "pids.max"):
            (path / name).write_text("")
    return Tree(root / folders[0], Mounts(root))


def test_on_a_unified_host_controllers_are_passed_down_and_set(tmp_path: Path) -> None:
    tree = fake(tmp_path, "outlive", "outlive/web", "outlive/web/front", controllers="cpuset cpu io memory pids")
    assert tree.limit("web", "front", Limits(cpus=1.5, memory_mib=2)) == ()
    front = tree.module("web", "front")
    assert (front / "cpu.max").read_text() == "150000 100000"
    assert (front / "memory.max").read_text() == "2097152"
    assert (front / "pids.max").read_text() == "max"
    assert (tree.workload("web") / "cgroup.subtree_control").read_text() in ("+cpu", "+memory")
    assert (tree.workload("web") / "pids.max").read_text() == ""


def test_what_the_kernel_cannot_hold_is_said(tmp_path: Path) -> None:
    tree = fake(tmp_path, "outlive", "outlive/web", "outlive/web/front", controllers="pids")
    assert tree.limit("web", "front", Limits(cpus=1.5, memory_mib=2, processes=7)) == (
        "the limit on processors is not held: the kernel has no cpu controller for it",
        "the limit on memory is not held: the kernel has no memory controller for it",
    )
    assert (tree.module("web", "front") / "pids.max").read_text() == "7"
