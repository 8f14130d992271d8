"""Checkpoints of a real guest: what comes back is one moment of memory, devices and disk, whatever was interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from outlive.errors import Failed
from outlive.replication import checkpoint_writer
from outlive.replication.checkpoint_desk import Desk
from outlive.replication.checkpoint_errors import CheckpointFailed, HardwareDiffers, ScribeSilent
from outlive.replication.checkpoint_folder import folder_of, list_checkpoints, names, read_heads
from outlive.replication.checkpoint_keeping import Keeping
from outlive.replication.checkpoint_reading import Resume, fill_memory, load_devices, prepare_resume, verify
from outlive.replication.tracking import CompareTracker

from .checkpoint_scene import HARDWARE, Guest, guest, ledger, make_disk, newest_number

pytestmark = pytest.mark.lab

STEPS = ("begin", "layers", "rounds", "cut", "put", "finish")


@pytest.fixture
def datastore(tmp_path: Path) -> Path:
    folder = tmp_path / "ds"
    folder.mkdir()
    return folder


@pytest.fixture
def mount_tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory with room for one base."""
    folder = tmp_path / "ds"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Guest, Path]]:
    """A guest that writes to memory and disk all the time, with the datastore that its disk is on."""
    folder = tmp_path_factory.mktemp("busy")
    datastore = folder / "ds"
    datastore.mkdir()
    with guest(folder / "host", make_disk(datastore)) as running:
        running.booted()
        assert running.ask("dirty 1000 3000") == "ok"
        assert running.ask("bg 50") == "ok"
        yield running, datastore


def in_step(resume: Resume, tmp_path: Path) -> None:
    """Memory and disk are of one moment: durable numbers are on the disk, and nothing that was not issued."""
    fill_memory(resume, tmp_path / "ram")
    told = ledger(tmp_path / "ram")
    (tmp_path / "ram").unlink()
    newest = newest_number(resume.disk_files()["root"], "qcow2", tmp_path / "disk")
    assert told["written"] <= newest <= told["issued"]


def goes_on(running: Guest) -> None:
    """The guest runs, and its numbers grow."""
    assert running.runs()
    before = int(running.numbers()["written"])
    deadline = time.monotonic() + 60
    while int(running.numbers()["written"]) <= before:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.soak
def test_another_host_goes_on_from_the_newest_whole_checkpoint(datastore: Path, tmp_path: Path) -> None:
    with guest(tmp_path / "a", make_disk(datastore)) as first:
        first.booted()
        first.ask("dirty 2000 4000")
        first.ask("bg 100")
        writer = first.writer(datastore)
        for number in range(1, 4):
            for _ in range(3):
                first.ask(f"inc 1 {first.numbers()['counter']}")
            checkpoint = writer.write("test")
            assert (checkpoint.parent is None) == (number == 1)
            time.sleep(0.3)
        assert writer.figures is not None
        base, _, newest = reversed([entry.checkpoint for entry in list_checkpoints(writer.folder)])
        assert base is not None
        assert newest is not None
        assert newest.memory.bytes < base.memory.bytes / 5
        first.ask("inc 1 99")
        writer.close()
    with pytest.raises(HardwareDiffers, match=r"7\.2\.22"):
        prepare_resume(writer.folder, replace(HARDWARE, emulator="9.9.9"), generation=2, host="b")

    in_step(prepare_resume(writer.folder, HARDWARE, generation=2, host="b"), tmp_path)
    damaged = writer.folder / newest.name / "memory.pages"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:200] + b"?" + whole[201:])
    earlier = prepare_resume(writer.folder, HARDWARE, generation=2, host="b")
    assert [skipped.name for skipped in earlier.skipped] == [newest.name]
    in_step(earlier, tmp_path)
    damaged.write_bytes(whole)

    resume = prepare_resume(writer.folder, HARDWARE, generation=2, host="b")
    with guest(tmp_path / "b", resume.disk_files()["root"], "qcow2", incoming=True) as second:
        fill_memory(resume, second.ram)
        line = second.qmp()
        load_devices(line, resume)
        line.run("cont")
        line.close()
        assert second.numbers()["counter"] == "9"
        goes_on(second)
        assert int(second.ask("dw 2 1").split()[0]) > 0
        later = second.writer(datastore, generation=2)
        later.write("test")
        later.close()
    in_step(prepare_resume(writer.folder, HARDWARE, generation=3, host="a"), tmp_path)


def test_memory_is_exact_after_checkpoints_that_failed_and_merges(busy: tuple[Guest, Path], tmp_path: Path) -> None:
    running, datastore = busy
    keep = Keeping(keep=2, slack=1, mib_s=None)
    fail_at = ""

    def step(at: str) -> None:
        if at == fail_at:
            raise CheckpointFailed("This one shall fail.")

    writer = running.writer(datastore, generation=2, keeping=keep, step=step)
    try:
        for round_ in range(8):
            fail_at = STEPS[round_ % len(STEPS)] if round_ % 2 else ""
            time.sleep(0.1)
            if fail_at:
                with pytest.raises(CheckpointFailed, match="shall fail"):
                    writer.write("test")
                goes_on(running)
            else:
                writer.write("test")
                writer.tidy()
            fail_at = ""
        assert len(names(writer.folder)) <= 3
        for last in range(2):
            paused(writer, running, tmp_path, exact=bool(last))
        chains = [entry.checkpoint.disks[0].layers for entry in list_checkpoints(writer.folder) if entry.checkpoint]
        assert max(map(len, chains)) <= 6
        heads = read_heads(writer.folder)
        assert heads is not None
        line = running.agents_line()
        nodes = [node["node-name"] for node in line.run("query-named-block-nodes", {"flat": True})]
        line.close()
        assert len([node for node in nodes if node.startswith("layer-")]) < len(heads.disks[0].layers)
        used = {Path(layer.path).name for chain in [*chains, heads.disks[0].layers] for layer in chain} - {"root.raw"}
        assert set(os.listdir(writer.folder / "disks")) == used
    finally:
        writer.close()
    goes_on(running)


def paused(writer: checkpoint_writer.CheckpointWriter, running: Guest, tmp_path: Path, *, exact: bool) -> None:
    """Take a checkpoint of the guest while it stands, which it does afterwards too, and compare all of its memory."""
    agents = running.agents_line()
    agents.run("stop")
    checkpoint = writer.write("test")
    writer.tidy()
    assert agents.run("query-status")["status"] == "paused"
    if exact:
        fill_memory(Resume(writer.folder, checkpoint, ()), tmp_path / "ram")
        assert (tmp_path / "ram").read_bytes() == running.ram.read_bytes()
        (tmp_path / "ram").unlink()
    agents.run("cont")
    agents.close()


def test_a_scribe_killed_at_any_step_costs_that_checkpoint_alone(
    busy: tuple[Guest, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    running, datastore = busy
    desks: list[Desk] = []
    kill_at = ""

    class Watched(Desk):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)  # type: ignore[arg-type]
            desks.append(self)

    def step(name: str) -> None:
        if name == kill_at:
            desks[-1].process.kill()

    monkeypatch.setattr(checkpoint_writer, "Desk", Watched)
    writer = running.writer(datastore, generation=3, step=step)
    try:
        whole = writer.write("test")
        for kill_at in STEPS:
            with pytest.raises(CheckpointFailed):
                writer.write("test")
            goes_on(running)
            assert verify(writer.folder, whole.name) == whole
            kill_at = ""
            whole = writer.write("test")
    finally:
        writer.close()


def test_a_datastore_that_hangs_is_given_up_and_the_guest_goes_on(
    busy: tuple[Guest, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    running, datastore = busy
    desks: list[Desk] = []

    class Hanging(Desk):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)  # type: ignore[arg-type]
            desks.append(self)

    monkeypatch.setattr(checkpoint_writer, "Desk", Hanging)
    hang = [True]

    def step(name: str) -> None:
        if name == "put" and hang.pop():
            hang.append(False)
            desks[-1].process.send_signal(signal.SIGSTOP)

    writer = running.writer(datastore, generation=4, step=step, silent_s=1.5)
    try:
        with pytest.raises(ScribeSilent):
            writer.write("test")
        goes_on(running)
        verify(writer.folder, writer.write("test").name)
    finally:
        writer.close()


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.replication import checkpoint_scene as scene
from outlive.replication.kernels import Staging
import json
told = json.loads(sys.argv[2])
running = scene.Guest.__new__(scene.Guest)
running.__dict__.update({key: Path(value) for key, value in told["paths"].items()}, hardware=scene.HARDWARE)
running.process = type("Process", (), {"pid": told["pid"]})()
if told["step"] == "standing":
    mark = running.scratch.with_name("scratch.standing")
    real = Staging.copy_out
    def copy_out(self, *arguments):
        if mark.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, *arguments)
    Staging.copy_out = copy_out
def step(name):
    if name == told["step"]:
        os.kill(os.getpid(), signal.SIGKILL)
running.writer(Path(told["datastore"]), generation=5, step=step).write("test")
"""


@pytest.mark.parametrize(
    "step", ["cut", *(pytest.param(step, marks=pytest.mark.soak) for step in ("layers", "standing", "finish"))]
)
def test_a_manager_killed_at_any_step_leaves_what_was_whole_and_the_next_one_mends(
    busy: tuple[Guest, Path], step: str
) -> None:
    running, datastore = busy
    paths = {key: str(getattr(running, key)) for key in ("folder", "memory", "ram", "scratch", "monitors")}
    told = json.dumps({"paths": paths, "pid": running.process.pid, "datastore": str(datastore), "step": step})
    before = [entry.name for entry in list_checkpoints(folder_of(datastore, "web"))]
    root = str(Path(__file__).parents[2])
    ended = subprocess.run([sys.executable, "-P", "-c", KILLED, root, told], check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert [entry.name for entry in list_checkpoints(folder_of(datastore, "web"))] == before
    assert running.runs() == (step != "standing")
    writer = running.writer(datastore, generation=5)
    try:
        writer.mend()
        goes_on(running)
        whole = writer.write("test")
        assert whole.parent is None
        verify(writer.folder, whole.name)
        assert set(names(writer.folder)) == {entry.name for entry in list_checkpoints(writer.folder)}
    finally:
        writer.close()


def test_without_the_kernels_tracking_written_pages_are_found_by_comparing(
    busy: tuple[Guest, Path], tmp_path: Path
) -> None:
    running, datastore = busy
    memory, tracker = running.memory_and_tracker()
    tracker.close()
    target = running.target(datastore, generation=6)
    writer = checkpoint_writer.CheckpointWriter(target, running.qmp, memory, CompareTracker(memory))
    try:
        base = writer.write("test")
        time.sleep(0.3)
        increment = writer.write("test")
        assert increment.parent == base.name
        assert increment.memory.bytes < base.memory.bytes / 5
        paused(writer, running, tmp_path, exact=True)
    finally:
        writer.close()
    goes_on(running)


def test_a_full_datastore_costs_that_checkpoint_alone(tmp_path: Path, mount_tmpfs: Path) -> None:
    with guest(tmp_path / "a", make_disk(mount_tmpfs, 1 << 20)) as running:
        running.booted()
        running.ask("dirty 2000 4000")
        writer = running.writer(mount_tmpfs)
        base = writer.write("test")
        ballast = mount_tmpfs / "ballast"
        subprocess.run(["dd", "if=/dev/zero", f"of={ballast}", "bs=64k"], check=False, capture_output=True)
        time.sleep(0.3)
        with pytest.raises(Failed) as failed:
            writer.write("test")
        assert "No space" in str(failed.value)
        assert running.runs()
        assert verify(writer.folder, base.name) == base
        ballast.unlink()
        paused(writer, running, tmp_path, exact=True)
        assert list_checkpoints(writer.folder)[0].checkpoint is not None
        assert list_checkpoints(writer.folder)[-1].name == base.name
        writer.close()
