"""Modules are loaded after what they need, and a machine that cannot download says what to do."""

import lzma
from pathlib import Path

import pytest

from outlive.lab.guests import packages
from outlive.lab.guests.archive import archive, file, folder, link
from outlive.lab.guests.kept import GuestNotMade


def module(root: Path, name: str, *needs: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / f"{name}.ko").write_bytes(b"\x7fELF\0license=GPL\0depends=" + ",".join(needs).encode() + b"\0name=x\0")


def test_modules_come_after_what_they_need_and_once(tmp_path: Path) -> None:
    module(tmp_path / "net", "virtio_net", "virtio_ring", "virtio", "net_failover")
    module(tmp_path / "net", "net_failover", "failover")
    module(tmp_path / "net", "failover")
    module(tmp_path / "virtio", "virtio")
    module(tmp_path / "virtio", "virtio_ring", "virtio")
    module(tmp_path / "char", "virtio-rng", "virtio")
    order = [path.stem for path in packages.in_order(("virtio_net", "virtio_rng", "built_in"), tmp_path)]
    assert order == ["virtio", "virtio_ring", "failover", "net_failover", "virtio_net", "virtio-rng"]


def test_a_machine_without_apt_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GuestNotMade) as caught:
        packages.cloud_kernel(tmp_path / "cache", (), lambda line: None)
    assert "no apt-get" in caught.value.sentence
    assert caught.value.remedy


def test_old_lists_are_replaced_by_fresh_ones_of_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def run(words: list[str], work: Path) -> str:
        calls.append(words)
        if words[0] == "apt-cache":
            return "linux-image-cloud-amd64\n  Depends: linux-image-9-cloud-amd64\n"
        if "download" in words and len(calls) < 3:
            raise GuestNotMade("404", cause="not found")
        return ""

    monkeypatch.setattr(packages, "run", run)
    told: list[str] = []
    packages.download_kernel(tmp_path, told.append)
    assert [words[-1] for words in calls[2:]] == ["update", "linux-image-cloud-amd64", "busybox-static"]
    own = f"-oDir::State::Lists={tmp_path}/lists"
    assert all(own in words for words in calls[2:])
    assert "apt's lists of packages do not do; fetching fresh ones, for this alone" in told


def test_the_same_entries_make_the_same_archive() -> None:
    entries = (folder("bin"), file("bin/sh", b"x" * 5, 0o755), link("init", "bin/sh"))
    made = archive(entries)
    assert made == archive(entries)
    assert made.startswith(b"070701")
    assert len(made) % 4 == 0
    assert b"TRAILER!!!" in made
    assert made != archive(entries[:-1])


def test_debian_itself_is_taken_from_where_apt_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = "http://m/debian/|n-updates|main\nhttp://m/debian/|n|main\nhttp://m/debian/|n|extra\nhttp://s/|n-security|main\n"
    monkeypatch.setattr(packages, "run", lambda words, work: told)
    suite, lines = packages.debian_sources(tmp_path, lambda line: None)
    assert suite == "n"
    assert sorted(lines) == [
        "deb http://m/debian/ n main extra",
        "deb http://m/debian/ n-updates main",
        "deb http://s/ n-security main",
    ]


def test_a_machine_without_debian_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "run", lambda words, work: "")
    with pytest.raises(GuestNotMade, match="no lists of Debian"):
        packages.debian_sources(tmp_path, lambda line: None)


def test_only_what_guests_need_is_kept_and_packed_modules_are_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(words: list[str], work: Path) -> str:
        apart = work / words[-1]
        module(apart / "usr" / "lib", "needed", "packed")
        module(apart / "usr" / "lib", "needless")
        module(apart / "usr" / "lib", "packed")
        plain = apart / "usr" / "lib" / "packed.ko"
        (apart / "usr" / "lib" / "packed.ko.xz").write_bytes(lzma.compress(plain.read_bytes()))
        plain.unlink()
        (apart / "boot").mkdir()
        (apart / "boot" / "vmlinuz-9").write_text("kernel")
        (apart / "usr" / "bin").mkdir()
        (apart / "usr" / "bin" / "busybox").write_text("busybox")
        return ""

    monkeypatch.setattr(packages, "download_kernel", lambda work, say: [Path("one.deb")])
    monkeypatch.setattr(packages, "run", run)
    kernel = packages.cloud_kernel(tmp_path, ("needed",), lambda line: None)
    assert kernel.image.name == "vmlinuz-9"
    assert kernel.busybox.read_text() == "busybox"
    assert [path.name for path in kernel.modules] == ["packed.ko", "needed.ko"]
    assert sorted(path.name for path in kernel.image.parent.iterdir()) == ["busybox", "modules", "vmlinuz-9"]
