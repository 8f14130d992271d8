"""What a host is: its boot id names this machine and this start of it, and copies of an image are other machines."""

from pathlib import Path

import pytest

from outlive.agent import facts
from outlive.cluster.boot import is_another_machine


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    machine, board = tmp_path / "machine-id", tmp_path / "product_uuid"
    monkeypatch.setattr(facts, "MACHINE_ID", machine)
    monkeypatch.setattr(facts, "PRODUCT_UUID", board)
    machine.write_text("4c4c4544\n")
    board.write_text("0001\n")
    return machine, board


def test_it_stays_the_same_as_long_as_the_machine_runs(files: tuple[Path, Path]) -> None:
    assert facts.boot_id() == facts.boot_id()


def test_a_copy_of_the_image_on_another_board_is_another_machine(files: tuple[Path, Path]) -> None:
    before = facts.boot_id()
    files[1].write_text("0002\n")
    assert is_another_machine(before, facts.boot_id())


def test_a_machine_without_an_id_is_nobody_for_certain(files: tuple[Path, Path]) -> None:
    before = facts.boot_id()
    for unreadable in (b"", b"\xff\xfe"):
        files[0].write_bytes(unreadable)
        assert not is_another_machine(before, facts.boot_id())
    files[0].unlink()
    assert not is_another_machine(before, facts.boot_id())
