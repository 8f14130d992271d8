"""Measures checkpoints of a busy guest against QEMU's own ways to write one, in one run, and prints a table.

    .venv/bin/python bench/checkpoints.py [--memory MIB] [--cpus N] [--dirty PAGES/S:PAGES] [--writes N/S] [--rounds N]
                                          [--folder DIR] [--json]

The pause is the time between QEMU's own events STOP and RESUME, by QEMU's clock, the same for all. QEMU's ways run on
a second guest of the same size and load whose memory is its own, since background-snapshot and our tracking exclude
each other. All write to the same folder. Needs root and qemu-system-x86; starts one guest at a time.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "replication"))

from checkpoint_scene import Guest, make_disk  # type: ignore[import-not-found]

from outlive.replication.checkpoint_keeping import Keeping
from outlive.replication.checkpoint_reading import fill_memory, load_devices, prepare_resume, verify
from outlive.replication.qmp_line import QmpLine

REST_S = 2.0
MOVE_S = 300.0


@dataclass(frozen=True, slots=True)
class Row:
    """One way to write a checkpoint. Medians over `times`; pause_most_ms: the longest of all."""

    way: str
    times: int
    pause_ms: float
    pause_most_ms: float
    mib: float
    took_ms: float


class Events:
    """Follows STOP and RESUME on the agent's monitor."""

    def __init__(self, running: Guest) -> None:
        self._pauses: list[float] = []
        self._stopped_s = 0.0
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(running.monitors / "agent"))
        self._socket.sendall(b'{"execute":"qmp_capabilities"}\n')
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        with self._socket.makefile() as lines:
            for line in lines:
                told = json.loads(line)
                at_s = (
                    told.get("timestamp", {}).get("seconds", 0) + told.get("timestamp", {}).get("microseconds", 0) / 1e6
                )
                if told.get("event") == "STOP":
                    self._stopped_s = at_s
                elif told.get("event") == "RESUME" and self._stopped_s:
                    self._pauses.append((at_s - self._stopped_s) * 1000)

    def take(self) -> list[float]:
        """The pauses since the last call, in ms."""
        time.sleep(0.3)
        taken, self._pauses = self._pauses, []
        return taken

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(2)
        self._socket.close()


@contextmanager
def loaded(folder: Path, disk: Path, options: argparse.Namespace, *, tracked: bool) -> Iterator[Guest]:
    """A guest that is as busy as asked for."""
    running = Guest(folder, disk, memory_mib=options.memory, cpus=options.cpus, tracked=tracked)
    try:
        running.booted()
        rate, _, pages = options.dirty.partition(":")
        assert running.ask(f"dirty {rate} {pages}") == "ok"
        assert running.ask(f"bg {options.writes}") == "ok"
        if options.fill:
            running.ask(f"dirty {options.fill * 256} {options.fill * 256}")
            time.sleep(3)
            running.ask(f"dirty {rate} {pages}")
        time.sleep(REST_S)
        yield running
    finally:
        running.kill()


def ours(folder: Path, options: argparse.Namespace) -> tuple[list[Row], dict[str, float]]:
    """Base, increments, merging; and what a resume takes."""
    datastore = folder / "ours"
    datastore.mkdir()
    increments: list[tuple[list[float], int, float]] = []
    with loaded(folder / "a", make_disk(datastore), options, tracked=True) as running:
        writer = running.writer(datastore, keeping=Keeping(keep=2, slack=options.rounds // 2, mib_s=None))
        events = Events(running)
        base = writer.write("bench")
        assert writer.figures is not None
        base_figures, base_pauses = writer.figures, events.take()
        tidied_s = 0.0
        for _ in range(options.rounds):
            time.sleep(options.interval)
            done = writer.write("bench")
            increments.append((events.take(), done.bytes, writer.figures.took_ms))
            begun = time.monotonic()
            writer.tidy()
            tidied_s = max(tidied_s, time.monotonic() - begun)
        while_merging = events.take()
        events.close()
        writer.close()
    begun = time.monotonic()
    verify(writer.folder, done.name)
    verified = time.monotonic()
    resume = prepare_resume(writer.folder, running.hardware, generation=2, host="b")
    prepared = time.monotonic()
    second = Guest(
        folder / "b", resume.disk_files()["root"], "qcow2", incoming=True, memory_mib=options.memory, cpus=options.cpus
    )
    try:
        started = time.monotonic()
        fill_memory(resume, second.ram)
        filled = time.monotonic()
        line = second.qmp()
        load_devices(line, resume)
        line.run("cont")
        runs = time.monotonic()
        line.close()
        assert second.booted().numbers()["written"]
        answered = time.monotonic()
    finally:
        second.kill()
    rows = [
        row("ours: base", [(base_pauses[-1:], base.bytes, base_figures.took_ms)]),
        row("ours: increment", increments),
    ]
    return rows, {
        "first base: extra pause for the head of the device state, ms": base_figures.prefix_ms,
        "merging and removing, longest, ms": tidied_s * 1000,
        "pauses of the guest by merging": len(while_merging),
        "verify, ms": (verified - begun) * 1000,
        "resume: verify again and make layers, ms": (prepared - verified) * 1000,
        "resume: memory, ms": (filled - started) * 1000,
        "resume: devices and cont, ms": (runs - filled) * 1000,
        "resume: from prepare to the guest's answer, QEMU's start left out, ms": (
            prepared - verified + answered - started
        )
        * 1000,
    }


def theirs(folder: Path, options: argparse.Namespace) -> list[Row]:
    """QEMU's background-snapshot and full migration to a file."""
    datastore = folder / "theirs"
    datastore.mkdir()
    with loaded(folder / "c", make_disk(datastore), options, tracked=False) as running:
        line = running.qmp()
        events = Events(running)

        def migrate(background: bool) -> tuple[list[float], int, float]:
            target = folder / "theirs" / "state"
            line.run(
                "migrate-set-capabilities",
                {"capabilities": [{"capability": "background-snapshot", "state": background}]},
            )
            line.run("migrate-set-parameters", {"max-bandwidth": 1 << 40})
            begun = time.monotonic()
            fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            line.run("getfd", {"fdname": "state"}, descriptors=[fd])
            line.run("migrate", {"uri": "fd:state"})
            line.wait(lambda: ended(line), within_s=MOVE_S)
            if not background:
                line.run("cont")
            os.fsync(fd)
            took_ms = (time.monotonic() - begun) * 1000
            size = os.fstat(fd).st_size
            os.close(fd)
            return events.take(), size, took_ms

        def several(background: bool) -> list[tuple[list[float], int, float]]:
            found = []
            for _ in range(max(2, options.rounds // 3)):
                time.sleep(options.interval)
                found.append(migrate(background))
            return found

        rows = [row("QEMU: background-snapshot", several(True)), row("QEMU: full migrate to a file", several(False))]
        events.close()
        line.close()
    return rows


def ended(line: QmpLine) -> bool:
    told = line.run("query-migrate")
    assert told.get("status") not in ("failed", "cancelled"), told
    return bool(told.get("status") == "completed")


def row(way: str, taken: list[tuple[list[float], int, float]]) -> Row:
    pauses = [sum(each) for each, _, _ in taken]
    middle: Callable[[list[float]], float] = statistics.median
    return Row(
        way, len(taken), middle(pauses), max(pauses), middle([size / 1048576 for _, size, _ in taken]),
        middle([took for _, _, took in taken]),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="checkpoints of a busy guest against QEMU's own")
    parser.add_argument("--memory", type=int, default=512, help="MiB of the guest")
    parser.add_argument("--fill", type=int, default=64, help="MiB of it that the guest fills before")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--dirty", default="1000:4000", help="pages dirtied a second, out of so many")
    parser.add_argument("--writes", type=int, default=50, help="synchronous disk writes a second")
    parser.add_argument("--rounds", type=int, default=12, help="increments to take")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between them")
    parser.add_argument("--folder", type=Path, help="where to write; default: the temporary folder")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="outlive-bench-", dir=options.folder))
    try:
        rows, beside = ours(folder, options)
        rows += theirs(folder, options)
    finally:
        shutil.rmtree(folder)
    if options.json:
        print(json.dumps({"rows": [asdict(one) for one in rows], "beside": beside}))
        return
    print(f"guest: {options.memory} MiB, {options.cpus} CPU, dirty {options.dirty}/s, {options.writes} disk writes/s\n")
    print(f"{'':32}{'times':>6}{'pause ms':>10}{'longest':>9}{'MiB':>9}{'took ms':>9}")
    for one in rows:
        print(f"{one.way:32}{one.times:6}{one.pause_ms:10.2f}{one.pause_most_ms:9.2f}{one.mib:9.2f}{one.took_ms:9.0f}")
    print()
    for what, value in beside.items():
        print(f"{what:72}{value:9.1f}")


if __name__ == "__main__":
    main()
