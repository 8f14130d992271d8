"""A standby keeps whole epochs and nothing else, whatever its primary sends: the stream's two ends, no machine."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from outlive.replication import handshake, link
from outlive.replication.comm_config import HotValues, ReplicatedDisk, TlsFiles
from outlive.replication.disk_copy import DiskCopies
from outlive.replication.disk_writes import DiskWrite, pack
from outlive.replication.feed import FINAL, SEEDING
from outlive.replication.follow import Callbacks, Following
from outlive.replication.handshake import Hello, StepHead
from outlive.replication.kernels import Packer, Staging
from outlive.replication.link import Bandwidth, Link, LinkBroken
from outlive.replication.memory import PAGE_BYTES, Memory, Runs
from outlive.replication.ports import Ports
from outlive.replication.stream import Kind, Receiver, Reign, Sender

from .authority import Authority

PAGES = 64
REIGN = Reign("c1", "vm1", 1, 1)
STATE = b"QEVM" + bytes(100)
DISK_BYTES = 64 * 1024


class Pairing:
    """A following standby, and the primary's end of its stream in the test's hands."""

    def __init__(self, folder: Path, hot: HotValues) -> None:
        ours, theirs = socket.socketpair()
        self.link = Link(ours)
        self.sender = Sender(self.link, REIGN)
        self.receiver = Receiver(self.link, REIGN)
        self.memory = Memory.allocate(PAGES * PAGE_BYTES)
        self.disk = folder / "d0.raw"
        self.disk.write_bytes(bytes(DISK_BYTES))
        disk = ReplicatedDisk("d0", "n0", str(self.disk), DISK_BYTES)
        self.copies = DiskCopies([disk], folder, durable=False)
        self.told: list[tuple[object, ...]] = []
        self.lost = threading.Event()
        hello = Hello("c1", "vm1", 1, 1, "a", PAGES * PAGE_BYTES, (), (), b"k" * 32)
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind(("127.0.0.1", 0))
        self.datagrams = datagrams
        standby = Link(theirs)
        self.following = Following(
            standby,
            Receiver(standby, REIGN),
            Sender(standby, REIGN),
            hello,
            REIGN,
            self.memory,
            self.copies,
            Ports([], collect=True),
            datagrams,
            hot,
            Callbacks(
                lambda epoch: self.told.append(("paired", epoch)),
                lambda epoch: self.told.append(("handed-over", epoch)),
                self._lost,
            ),
        )
        self.step = 0
        self._packer = Packer(PAGES)
        self._staging = Staging(PAGES)
        self.following.start()
        self.sender.send(Kind.PREFIX, [b"prefix"], within_s=60)

    def pages(self, fill: int, count: int = 3, flags: int = 0) -> bytearray:
        """Send pages that hold nothing but `fill`; returns the payload."""
        source = Memory.allocate(PAGES * PAGE_BYTES)
        source.view[: count * PAGE_BYTES] = bytes([fill]) * (count * PAGE_BYTES)
        self._staging.copy_out(source, Runs.of([(0, count)]))
        payload = bytearray(self._packer.encode(self._staging))
        self.sender.send(Kind.PAGES, [payload], epoch=self.step + 1, flags=flags, within_s=60)
        return payload

    def write(self, fill: int, flags: int = 0) -> None:
        for parts in pack([DiskWrite(0, 4096, 512, bytearray([fill]) * 512)]):
            self.sender.send(Kind.DISK, parts, epoch=self.step + 1, flags=flags, within_s=60)

    def end(self, pages: int = 1, writes: int = 1, flags: int = 0, state: bytes = STATE) -> None:
        self.step += 1
        state = b"" if flags & SEEDING else zstandard.compress(state)
        head = handshake.pack_head(StepHead(pages, writes, len(state)))
        self.sender.send(Kind.EPOCH, [head, state], epoch=self.step, flags=flags, within_s=60)

    def epoch(self, fill: int, flags: int = 0) -> None:
        self.pages(fill, flags=flags)
        self.write(fill, flags=flags)
        self.end(flags=flags)

    def acknowledged(self) -> int:
        message = self.receiver.receive(10)
        assert message.kind is Kind.ACKNOWLEDGED
        return message.epoch

    def holds(self, fill: int) -> bool:
        """Whether memory and disk are exactly what epoch `fill` made them."""
        page = bytes([fill]) * PAGE_BYTES * 3
        return bytes(self.memory.view[: len(page)]) == page and self.disk.read_bytes()[4096:4608] == page[:512]

    def close(self) -> None:
        self.following.freeze()
        self.link.dispose()
        self.datagrams.close()
        self.copies.close()

    def _lost(self, reason: str, silent_s: float, epoch: int) -> None:
        self.told.append(("lost", reason.split(":")[0], epoch))
        self.lost.set()


@pytest.fixture
def pairing(tmp_path: Path) -> Iterator[Pairing]:
    made = Pairing(tmp_path, HotValues(silence_ms=60_000, sync_disks=False))
    yield made
    made.close()


def test_a_whole_epoch_is_acknowledged_and_applied(pairing: Pairing) -> None:
    pairing.epoch(1, flags=SEEDING)
    pairing.epoch(2)
    pairing.epoch(3, flags=FINAL)
    assert [pairing.acknowledged() for _ in range(3)] == [1, 2, 3]
    whole = pairing.following.freeze()
    assert whole is not None
    assert (whole.epoch, whole.prefix, whole.state) == (3, b"prefix", STATE)
    assert pairing.holds(3)
    assert pairing.told == [("paired", 2), ("handed-over", 3)]


def test_an_epoch_that_did_not_come_whole_leaves_no_trace(pairing: Pairing) -> None:
    pairing.epoch(2)
    pairing.acknowledged()
    pairing.pages(3)
    pairing.write(3)
    pairing.link.close()
    assert pairing.lost.wait(60)
    whole = pairing.following.freeze()
    assert whole is not None
    assert (whole.epoch, whole.discarded_writes) == (1, 1)
    assert pairing.holds(2)
    assert pairing.told[-1] == ("lost", "end-of-stream", 1)


@pytest.mark.parametrize("harm", ["checksum", "pages", "missing pages", "extra write", "gap", "state", "seeding again"])
def test_a_damaged_epoch_loses_the_peer_and_is_never_applied(pairing: Pairing, harm: str) -> None:
    pairing.epoch(2)
    pairing.acknowledged()
    match harm:
        case "checksum":
            pairing.link.send(b"\xff" * 200, 5)
        case "pages":
            pairing.sender.send(Kind.PAGES, [b"no pages at all" * 9], epoch=2, within_s=60)
        case "missing pages":
            pairing.pages(3)
            pairing.end(pages=2, writes=0)
        case "extra write":
            pairing.write(3)
            pairing.end(pages=0, writes=0)
        case "gap":
            pairing.step += 1
            pairing.epoch(3)
        case "state":
            pairing.pages(3)
            pairing.end(writes=0, state=b"no state at all")
        case _:
            pairing.epoch(3, flags=SEEDING)
    assert pairing.lost.wait(60)
    whole = pairing.following.freeze()
    assert whole is not None
    assert whole.epoch == 1
    assert pairing.holds(2)
    assert pairing.told[-1] == ("lost", "garbage", 1)
    with pytest.raises(LinkBroken):
        pairing.receiver.receive(5)


def test_nothing_is_acknowledged_once_frozen(pairing: Pairing) -> None:
    pairing.epoch(2)
    pairing.acknowledged()
    whole = pairing.following.freeze()
    assert whole is not None
    with pytest.raises(LinkBroken):
        pairing.epoch(3)
    assert pairing.holds(2)
    assert pairing.told[-1] == ("paired", 1), "freezing is not losing"


def test_an_epoch_whose_acknowledgement_found_nobody_is_adopted_with_its_pages(pairing: Pairing) -> None:
    pairing.epoch(1, flags=SEEDING)
    pairing.epoch(2)
    assert [pairing.acknowledged() for _ in range(2)] == [1, 2]
    commit, gone = pairing.copies.commit, threading.Event()

    def slow_commit(*words: Any) -> None:
        gone.wait(60)
        commit(*words)

    pairing.copies.commit = slow_commit  # type: ignore[assignment, method-assign]
    pairing.epoch(3)
    pairing.link.dispose()
    gone.set()
    assert pairing.lost.wait(60)
    whole = pairing.following.freeze()
    assert whole is not None
    assert pairing.told[-1] == ("lost", "end-of-stream", whole.epoch)
    assert pairing.holds(whole.epoch), "an epoch's device state on an older one's memory is no machine"


def test_no_later_epoch_makes_good_what_could_not_be_applied(pairing: Pairing) -> None:
    tried, go_on = threading.Event(), threading.Event()

    def broken(*_: Any) -> None:
        tried.set()
        go_on.wait(10)
        raise OSError("the disk is gone")

    pairing.copies.apply = broken  # type: ignore[assignment, method-assign]
    pairing.epoch(1)
    assert tried.wait(60)
    for fill in range(2, 8):  # the receiver takes the next of these in the moment in which applying breaks
        pairing.epoch(fill)
    go_on.set()
    assert pairing.lost.wait(60)
    assert pairing.told[-1] == ("lost", "cannot be applied", 0)
    assert pairing.following.freeze() is None


def test_without_a_whole_epoch_there_is_nothing_to_adopt(pairing: Pairing) -> None:
    pairing.epoch(1, flags=SEEDING)
    pairing.acknowledged()
    assert pairing.following.freeze() is None


def test_silence_is_told_once_it_is_long_enough(tmp_path: Path) -> None:
    pairing = Pairing(tmp_path, HotValues(silence_ms=150, sync_disks=False))
    pairing.epoch(2)
    pairing.acknowledged()
    assert pairing.lost.wait(60)
    assert pairing.told[-1] == ("lost", "silence", 1)
    pairing.close()


def test_a_disk_that_cannot_be_written_is_no_standby(pairing: Pairing) -> None:
    pairing.epoch(2)
    pairing.acknowledged()
    while not pairing.holds(2):
        time.sleep(0.01)
    for descriptor in pairing.copies._files:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, descriptor)
        os.close(full)
    pairing.epoch(3)
    assert pairing.lost.wait(60)
    assert pairing.following.freeze() is None


def test_links_need_certificates_of_the_same_authority_both_ways(tmp_path: Path) -> None:
    good, other = Authority(tmp_path / "good"), Authority(tmp_path / "other")
    for client, server, works in [
        (good.files("a"), good.files("b"), True),
        (other.files("a"), good.files("b"), False),
        (good.files("a"), other.files("b"), False),
        (None, good.files("b"), False),
    ]:
        assert exchange(client, server) is works


def exchange(client: TlsFiles | None, server: TlsFiles) -> bool:
    """Whether a message goes both ways, from the host that calls itself a to b."""
    listener = socket.create_server(("127.0.0.1", 0))
    answered = threading.Event()

    def serve() -> None:
        try:
            with link.accepted(listener.accept()[0], server) as peer:
                got = bytearray(100_000)
                peer.receive_into(memoryview(got), 5)
                assert peer.peer_name == "a"
                peer.send(got, 5)
                answered.wait(5)
        except LinkBroken:
            return

    thread = threading.Thread(target=serve)
    thread.start()
    sent, got = os.urandom(100_000), bytearray(100_000)
    try:
        with link.connect("127.0.0.1", listener.getsockname()[1], client, Bandwidth(None), 5) as peer:
            peer.send(sent, 5)
            peer.receive_into(memoryview(got), 5)
            works = got == sent and peer.peer_name == "b"
    except LinkBroken:
        works = False
    answered.set()
    thread.join()
    listener.close()
    return works
