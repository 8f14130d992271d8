"""The seed medium of cloud-init: the same on every host, and a file system that others can read."""

import subprocess
from pathlib import Path

import pytest

from outlive.cluster.machine import CloudInit
from outlive.errors import UsageInvalid
from outlive.runtime.vm.seed import SECTOR_BYTES, file_system, seed


def read_back(image: bytes) -> dict[str, bytes]:
    """Read the root folder's files as the FAT specification says."""

    def number(at: int, size: int) -> int:
        return int.from_bytes(image[at : at + size], "little")

    cluster = number(13, 1) * SECTOR_BYTES
    tables_at, table = number(14, 2) * SECTOR_BYTES, number(22, 2) * SECTOR_BYTES
    root_at = tables_at + number(16, 1) * table
    data_at = root_at + number(17, 2) * 32
    files: dict[str, bytes] = {}
    long = ""
    for at in range(root_at, data_at, 32):
        entry = image[at : at + 32]
        if entry[0] == 0:
            break
        if entry[11] == 0x0F:
            part = (entry[1:11] + entry[14:26] + entry[28:32]).decode("utf-16-le")
            long = part.split("\0")[0].rstrip("\uffff") + long
        elif entry[11] == 0x20:
            at_cluster, size = number(at + 26, 2), number(at + 28, 4)
            content = b""
            while 0 < at_cluster < 0xFF8:
                content += image[data_at + (at_cluster - 2) * cluster :][:cluster]
                pair = number(tables_at + at_cluster * 3 // 2, 2)
                at_cluster = pair >> 4 if at_cluster % 2 else pair & 0xFFF
            files[long], long = content[:size], ""
    return files


def test_texts_are_read_back_whatever_their_length() -> None:
    files = {"meta-data": b"", "user-data": b"u" * 100_001, "network-config": bytes(range(256)) * 8}
    assert read_back(file_system(files)) == files


def test_the_same_texts_make_the_same_seed() -> None:
    texts = CloudInit("#cloud-config\n", "instance-id: x\n", "version: 2\n")
    assert seed(texts, "one") == seed(texts, "one")
    assert read_back(seed(texts, "one")) == {
        "meta-data": b"instance-id: x\n",
        "user-data": b"#cloud-config\n",
        "network-config": b"version: 2\n",
    }


def test_what_is_not_given_is_what_cloud_init_needs() -> None:
    assert read_back(seed(CloudInit(), "one")) == {
        "meta-data": b"instance-id: one\nlocal-hostname: one\n",
        "user-data": b"#cloud-config\n",
    }


def test_it_is_known_by_its_label(tmp_path: Path) -> None:
    image = tmp_path / "seed.img"
    image.write_bytes(seed(CloudInit(), "one"))
    said = subprocess.run(["/sbin/blkid", "-p", "-o", "export", image], capture_output=True, text=True, timeout=60)
    assert {"LABEL=CIDATA", "TYPE=vfat"} <= set(said.stdout.split())


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageInvalid, match="too long"):
        seed(CloudInit("x" * (9 << 20)), "one")
