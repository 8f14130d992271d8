"""A standby's disks are one whole epoch, wherever it was killed; and after a break no difference is forgotten."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlive.replication import disk_copy
from outlive.replication.comm_config import ReplicatedDisk
from outlive.replication.disk_copy import LABELS, LOG, DiskCopies, make_startable, payloads_of
from outlive.replication.disk_journal import BLOCK_BYTES, Differences, DiskJournal
from outlive.replication.disk_writes import DiskLabel, DiskWrite

SIZE = 256 * 1024


class Killed(Exception):
    pass


def disks(folder: Path, count: int = 2) -> list[ReplicatedDisk]:
    folder.mkdir(exist_ok=True)
    made = []
    for index in range(count):
        path = folder / f"d{index}.raw"
        if not path.exists():
            path.write_bytes(bytes(SIZE))
        made.append(ReplicatedDisk(f"d{index}", f"node{index}", str(path), SIZE))
    return made


def drawn_writes(dice: random.Random, count: int) -> list[DiskWrite]:
    writes = []
    for _ in range(count):
        length = dice.choice([512, 4096, 70_000])
        data = bytearray(dice.randbytes(length)) if dice.random() < 0.8 else None
        writes.append(DiskWrite(dice.randrange(2), dice.randrange(0, SIZE - length, 512), length, data))
    return writes


def contents(made: list[ReplicatedDisk]) -> list[bytes]:
    return [Path(disk.path).read_bytes() for disk in made]


def applied(before: list[bytes], writes: list[DiskWrite]) -> list[bytes]:
    after = [bytearray(content) for content in before]
    for write in writes:
        after[write.disk][write.offset : write.offset + write.length] = write.data or bytes(write.length)
    return [bytes(content) for content in after]


def make_whole(copies: DiskCopies, epoch: int = 1) -> None:
    copies.seed(1, 1, [])
    copies.apply(1, 1, epoch, [])


@pytest.mark.parametrize("seed", range(6))
def test_killed_anywhere_the_disks_are_a_whole_epoch(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(seed)
    made = disks(tmp_path)
    copies = DiskCopies(made, tmp_path, durable=True)
    make_whole(copies)
    monkeypatch.setattr(disk_copy, "MOST_LOG_BYTES", 300_000)
    states, before = {1: contents(made)}, contents(made)
    countdown = dice.randrange(5, 120)

    def dying(call: Callable[..., int]) -> Callable[..., int]:
        def instead(descriptor: int, data: memoryview, offset: int) -> int:
            nonlocal countdown
            countdown -= 1
            if countdown < 0:
                call(descriptor, data[: len(data) // 2], offset)
                raise Killed
            return call(descriptor, data, offset)

        return instead

    acknowledged = 1
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", dying(os.pwrite))
        try:
            for epoch in range(2, 60):
                writes = drawn_writes(dice, dice.randrange(0, 4))
                before = applied(before, writes)
                states[epoch] = before
                copies.commit(1, 1, epoch, payloads_of(writes))
                acknowledged = epoch
                copies.apply(1, 1, epoch, writes)
        except Killed:
            pass
    again = DiskCopies(made, tmp_path, durable=True)
    assert again.label is not None
    assert again.label.whole
    assert contents(made) in (states[acknowledged], states.get(acknowledged + 1))
    again.close()


def test_a_first_copy_broken_off_is_never_called_whole(tmp_path: Path) -> None:
    made = disks(tmp_path)
    copies = DiskCopies(made, tmp_path, durable=True)
    make_whole(copies)
    copies.seed(1, 2, [DiskWrite(0, 0, 512, bytearray(b"x" * 512))])
    copies.close()
    again = DiskCopies(made, tmp_path, durable=True)
    assert again.label == DiskLabel("", 1, 2, 0, whole=False)
    assert make_startable(made) == DiskLabel("", 1, 2, 0, whole=False)
    again.seeded(1, 2, 5)
    assert [label.step for label in again.labels] == [5, 5]
    again.close()


def test_a_torn_log_is_left_alone(tmp_path: Path) -> None:
    made = disks(tmp_path)
    copies = DiskCopies(made, tmp_path, durable=True)
    make_whole(copies)
    copies.commit(1, 1, 2, payloads_of([DiskWrite(0, 0, 4096, bytearray(b"y" * 4096))]))
    copies.close()
    log = tmp_path / LOG
    log.write_bytes(log.read_bytes()[:-1])
    DiskCopies(made, tmp_path, durable=True).close()
    assert not any(contents(made)[0])


def test_a_disk_that_became_a_guests_own_is_never_written_over(tmp_path: Path) -> None:
    made = disks(tmp_path)
    copies = DiskCopies(made, tmp_path, durable=True)
    make_whole(copies)
    copies.commit(1, 1, 2, payloads_of([DiskWrite(0, 0, 4096, bytearray(b"y" * 4096))]))
    copies.close()
    assert make_startable(made) == DiskLabel("", 1, 1, 2, whole=True)
    assert contents(made)[0][:4096] == b"y" * 4096
    assert not (tmp_path / LABELS).exists()
    Path(made[0].path).write_bytes(b"z" * SIZE)
    again = DiskCopies(made, tmp_path, durable=True)
    assert contents(made)[0] == b"z" * SIZE
    assert again.labels == [DiskLabel("d0"), DiskLabel("d1")]
    again.close()
    assert make_startable(made) is None


@given(st.lists(st.tuples(st.integers(0, SIZE * 3), st.integers(0, SIZE)), max_size=10), st.integers(1, 8))
def test_every_marked_byte_is_taken_once(ranges: list[tuple[int, int]], blocks: int) -> None:
    size = SIZE * 4 + 512
    different = Differences(size, all_differ=False)
    want = set()
    for offset, length in ranges:
        different.mark(offset, length)
        if length:
            want |= set(range(offset // BLOCK_BYTES, (offset + length - 1) // BLOCK_BYTES + 1))
    got: list[int] = []
    while (run := different.take(blocks * BLOCK_BYTES)) is not None:
        offset, length = run
        assert offset + length <= size
        assert length <= blocks * BLOCK_BYTES
        got += range(offset // BLOCK_BYTES, -(-(offset + length) // BLOCK_BYTES))
    assert sorted(want) == got
    assert different.different_bytes == 0


@pytest.mark.parametrize("seed", range(4))
def test_over_breaks_and_returns_the_copy_becomes_the_disk(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    ours, theirs = disks(tmp_path / "ours"), disks(tmp_path / "theirs")
    for disk in ours:
        Path(disk.path).write_bytes(dice.randbytes(SIZE))
    journal, copies = DiskJournal(ours), DiskCopies(theirs, tmp_path, durable=False)
    handles = [os.open(disk.path, os.O_RDWR) for disk in ours]
    known = []

    def guest_writes(count: int) -> None:
        for write in drawn_writes(dice, count):
            os.pwrite(handles[write.disk], write.data or bytes(write.length), write.offset)
            journal.took(write.disk, write.offset, write.length, None if write.data is None else bytearray(write.data))

    for pairing in range(1, 6):
        known.append(journal.follow(1, pairing, copies.labels))
        step = 0
        broken_off = dice.random() < 0.4
        while journal.copy_some(128 * 1024) or step == 0:
            guest_writes(dice.randrange(3))
            step += 1
            writes = journal.cut(step)
            if broken_off and step == 3:
                break  # sent, never arrived
            copies.seed(1, pairing, writes)
            copies.seeded(1, pairing, step)
            if dice.random() < 0.7:
                journal.acknowledged(step)
        else:
            for _ in range(5):
                guest_writes(dice.randrange(4))
                step += 1
                writes = journal.cut(step)
                if dice.random() < 0.2:
                    break
                copies.commit(1, pairing, step, payloads_of(writes))
                copies.apply(1, pairing, step, writes)
                assert contents(theirs) == contents(ours)
                if dice.random() < 0.7:
                    journal.acknowledged(step)
        journal.unfollow()
        guest_writes(dice.randrange(5))
    assert known[0] is False
    assert all(known[1:]), "a break was answered by copying everything again"
    for handle in handles:
        os.close(handle)
    journal.close()
    copies.close()
