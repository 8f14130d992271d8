"""Boot ids: one machine begun anew is told from another machine, and what is not known is never the same."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from outlive.cluster.boot import boot_id, is_another_machine, is_another_start, is_same_machine, names_machine


def test_a_machine_that_began_anew_is_the_same_machine() -> None:
    before, now = boot_id("box", "monday"), boot_id("box", "tuesday")
    assert is_another_start(before, now)
    assert not is_another_machine(before, now)


def test_another_machine_is_never_taken_for_the_first_begun_anew() -> None:
    before, now = boot_id("box", "monday"), boot_id("crate", "tuesday")
    assert is_another_machine(before, now)
    assert not is_another_start(before, now)


def test_the_same_start_is_neither() -> None:
    same = boot_id("box", "monday")
    assert not is_another_machine(same, same)
    assert not is_another_start(same, same)


def test_of_machines_that_nobody_can_name_nothing_is_certain() -> None:
    named = boot_id("box", "tuesday")
    for before, now in ((boot_id("", "monday"), boot_id("", "tuesday")), ("", named), (boot_id("", "monday"), named)):
        assert not is_another_machine(before, now)
        assert not is_another_start(before, now)


@given(st.uuids(version=4), st.uuids(version=4))
def test_the_kernels_own_ids_which_older_versions_give_name_no_machine(before: UUID, now: UUID) -> None:
    assert not names_machine(before.hex)
    for other in (now.hex, boot_id("box", "tuesday")):
        assert not is_another_machine(before.hex, other)
        assert not is_another_machine(other, before.hex)
        assert not is_same_machine(before.hex, other)


@given(st.text(), st.text())
def test_it_is_32_hexadecimal_characters_and_tells_nothing_of_what_it_was_made_of(machine: str, start: str) -> None:
    made = boot_id(machine, start)
    assert len(bytes.fromhex(made)) == 16
    assert made == boot_id(machine, start)
    assert names_machine(made) is bool(machine)
