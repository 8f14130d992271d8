"""QEMU's writes reach the journal before their reply, by the word of the protocol; nonsense harms nobody."""

import contextlib
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outlive.replication.comm_config import ReplicatedDisk
from outlive.replication.disk_journal import DiskJournal
from outlive.replication.nbd import NbdServer

SIZE = 1 << 20


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[DiskJournal]:
    made = []
    for index in range(2):
        path = tmp_path / f"d{index}.raw"
        path.write_bytes(bytes(SIZE))
        made.append(ReplicatedDisk(f"d{index}", f"n{index}", str(path), SIZE))
    journal = DiskJournal(made)
    journal.follow(1, 1, [])
    server = NbdServer(tmp_path / "nbd.sock", journal.exports())
    yield journal
    server.close()
    journal.close()


def qemu_io(folder: Path, disk: str, *commands: str) -> str:
    program = shutil.which("qemu-io")
    assert program is not None
    words = [program, "-f", "raw", *(word for command in commands for word in ("-c", command))]
    words.append(f"nbd+unix:///{disk}?socket={folder}/nbd.sock")
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False).stdout


def test_qemus_own_client_writes_zeroes_trims_and_flushes(journal: DiskJournal, tmp_path: Path) -> None:
    said = qemu_io(
        tmp_path, "d1", "write -P 0x5a 4096 8192", "write -z 65536 65536", "discard 0 4096", "flush", "length"
    )
    assert "wrote 8192/8192" in said
    assert "1 MiB" in said
    writes = journal.cut(1)
    assert [(w.disk, w.offset, w.length, w.data and bytes(w.data)) for w in writes] == [
        (1, 4096, 8192, b"\x5a" * 8192),
        (1, 65536, 65536, None),
        (1, 0, 4096, None),
    ]


def test_writes_beyond_the_end_and_reads_are_errors(journal: DiskJournal, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(tmp_path / "nbd.sock"))
        client.recv(18, socket.MSG_WAITALL)
        client.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 1, 2) + b"d0")
        assert struct.unpack(">QH", client.recv(10, socket.MSG_WAITALL))[0] == SIZE
        for kind, offset, length, data in [(1, SIZE - 512, 1024, b"x" * 1024), (6, SIZE, 512, b""), (0, 0, 512, b"")]:
            client.sendall(struct.pack(">IHHQQI", 0x25609513, 0, kind, 77, offset, length) + data)
            _, fault, handle = struct.unpack(">IIQ", client.recv(16, socket.MSG_WAITALL))
            assert (fault, handle) == (22, 77)
    assert journal.cut(1) == []


def test_an_unknown_export_is_refused(journal: DiskJournal, tmp_path: Path) -> None:
    assert "MiB" not in qemu_io(tmp_path, "d7", "length")
    assert "1 MiB" in qemu_io(tmp_path, "d0", "length")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(content=st.binary(min_size=1, max_size=200))
def test_garbage_ends_one_connection_and_no_other(journal: DiskJournal, tmp_path: Path, content: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(tmp_path / "nbd.sock"))
        client.recv(18, socket.MSG_WAITALL)
        client.sendall(content)
        client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while client.recv(4096):
                pass
    assert journal.open_bytes == 0
