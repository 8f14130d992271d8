"""A device resets the host in time whatever becomes of the guard, and never while the guard does what it is for."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..datastore.conftest import HungStorage, hang
from .guarding import NS_PER_S, Client, GuardProcess, boot_ns, populated, sleeper, succeeding, until
from .watchdog_device import CAN_SET, KEEPALIVEPING, Device, standin

__all__ = ["hang"]

START = Callable[..., GuardProcess]
LATE_S = 0.4


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return standin(tmp_path_factory.mktemp("standin"))


@pytest.fixture
def make(tmp_path: Path, library: Path, start_guard: START) -> Iterator[Callable[..., tuple[Device, GuardProcess]]]:
    """A device of one second and a guard that feeds it; again, another guard for the same device."""
    devices: list[Device] = []

    def one(longest_s: int = 2, again: bool = False, **device: Any) -> tuple[Device, GuardProcess]:
        """longest_s: what the guard is told to be safe."""
        if not again:
            devices.append(Device(tmp_path / "watchdog", **device))
        words = (f"--watchdog={devices[-1].path}", "--watchdog-timeout=1", f"--watchdog-longest={longest_s}")
        environment = devices[-1].environment(library)
        return devices[-1], succeeding(lambda: start_guard(*words, environment=environment))

    yield one
    for each in devices:
        each.close()


def extend(client: Client, seconds: float) -> int:
    """Set a deadline; from when on others may act."""
    deadline_ns = boot_ns() + int(seconds * NS_PER_S)
    over_ns = deadline_ns + int(LATE_S * NS_PER_S)
    assert client.ask(f"DEADLINE {deadline_ns} {over_ns}") == f"OK {deadline_ns}"
    return over_ns


def taken(storage: HungStorage) -> int:
    storage.take_requests()
    return storage.taken


def protect(client: Client, cgroup: Path) -> None:
    assert client.ask(f"PROTECT web 1 {cgroup}") == "OK"


def test_the_device_is_asked_what_it_is_and_fed_while_nothing_is_protected(
    make: Callable[..., tuple[Device, GuardProcess]],
) -> None:
    device, guard = make()
    assert device.asked == ["getsupport", "settimeout 1", "gettimeout"]
    assert "watchdog=1s:stand_in" in guard.connect().hello
    time.sleep(1.4)
    assert device.reset_ns == 0


def test_a_guard_that_ends_in_order_disarms_the_device(make: Callable[..., tuple[Device, GuardProcess]]) -> None:
    device, guard = make()
    assert guard.connect().ask("QUIT") == "OK"
    assert guard.process.wait(60) == 0
    until(lambda: not device.armed)


@pytest.mark.parametrize(
    ("device", "says"),
    [({"least_s": 10}, "longer than the 2 s"), ({"options": KEEPALIVEPING | CAN_SET}, "disarmed by whoever closes it")],
)
def test_a_device_that_would_not_fire_in_time_is_refused_with_the_reason(
    device: dict[str, int], says: str, make: Callable[..., tuple[Device, GuardProcess]]
) -> None:
    refused, guard = make(**device)
    assert guard.answer.startswith("ERR ")
    assert says in guard.answer
    assert guard.process.wait(60) == 1
    until(lambda: not refused.armed)


def test_a_device_that_is_not_there_is_refused(start_guard: START, tmp_path: Path) -> None:
    guard = start_guard(f"--watchdog={tmp_path / 'none'}", "--watchdog-timeout=1", "--watchdog-longest=2")
    assert guard.answer.startswith("ERR the watchdog device cannot be opened")


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_a_guard_that_dies_or_hangs_lets_the_device_fire_before_others_may_act(
    end: signal.Signals, make: Callable[..., tuple[Device, GuardProcess]], root: Path
) -> None:
    device, guard = make()
    client = guard.connect()
    with sleeper(root / "web"):
        over_ns = extend(client, 0.9)
        protect(client, root / "web")
        guard.send(end)
        until(lambda: device.reset_ns)
    assert device.reset_ns <= over_ns
    if end == signal.SIGSTOP:
        guard.send(signal.SIGCONT)


def test_a_guard_that_ends_everything_in_time_keeps_its_host(
    make: Callable[..., tuple[Device, GuardProcess]], root: Path
) -> None:
    device, guard = make()
    client = guard.connect()
    with sleeper(root / "web") as module:
        extend(client, 0.9)
        protect(client, root / "web")
        assert module.wait(60) == -signal.SIGKILL
    assert client.hear().startswith("FIRED ")
    time.sleep(1.4)
    assert device.reset_ns == 0


def test_what_cannot_be_killed_is_ended_by_the_device_before_others_may_act(
    make: Callable[..., tuple[Device, GuardProcess]], root: Path, tmp_path: Path, hang: Callable[[Path], HungStorage]
) -> None:
    """A process that waits in the kernel for storage does not die of the guard's kill."""
    device, guard = make()
    client = guard.connect()
    (root / "web").mkdir()
    (tmp_path / "storage").mkdir()
    storage = hang(tmp_path / "storage")
    enter = f"echo 0 > '{root / 'web'}/cgroup.procs' && exec cat {storage.path}/file"
    with subprocess.Popen(["sh", "-c", enter], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        try:
            until(lambda: taken(storage))
            over_ns = extend(client, 0.9)
            protect(client, root / "web")
            until(lambda: device.reset_ns)
            assert device.reset_ns <= over_ns
            assert populated(root / "web")
        finally:
            storage.end()


def test_deadlines_that_keep_coming_keep_the_host(make: Callable[..., tuple[Device, GuardProcess]], root: Path) -> None:
    device, guard = make()
    client = guard.connect()
    with sleeper(root / "web") as module:
        extend(client, 3.0)
        protect(client, root / "web")
        for _ in range(5):
            extend(client, 3.0)
            time.sleep(0.3)
        assert module.poll() is None
    assert device.reset_ns == 0


def test_the_next_guard_does_not_take_its_empty_table_for_the_truth(
    make: Callable[..., tuple[Device, GuardProcess]], root: Path
) -> None:
    device, guard = make()
    client = guard.connect()
    with sleeper(root / "web"):
        over_ns = extend(client, 1.2)
        protect(client, root / "web")
        guard.send(signal.SIGKILL)
        guard.process.wait(60)
        _, second = make(again=True)
        assert second.connect().ask("QUIT").startswith("ERR protecting ")
        until(lambda: device.reset_ns)
    assert device.reset_ns <= over_ns


def test_the_next_guard_feeds_on_once_its_table_is_whole(
    make: Callable[..., tuple[Device, GuardProcess]], root: Path
) -> None:
    device, guard = make()
    client = guard.connect()
    with sleeper(root / "web"):
        extend(client, 1.2)
        protect(client, root / "web")
        guard.send(signal.SIGKILL)
        guard.process.wait(60)
    _, second = make(again=True)
    client = second.connect()
    assert client.ask("WHOLE") == "OK"
    time.sleep(1.4)  # longer than the device waits
    assert device.reset_ns == 0
    assert client.ask("QUIT") == "OK"
    until(lambda: not device.armed)


def past(boot_moment_ns: int) -> None:
    until(lambda: boot_ns() > boot_moment_ns)


def test_the_next_guard_gives_no_sign_of_life_that_its_predecessor_was_not_allowed(
    make: Callable[..., tuple[Device, GuardProcess]], root: Path
) -> None:
    """Opening the device is one: the last that is allowed is its timeout before others may act."""
    device, guard = make()
    client = guard.connect()
    with sleeper(root / "web"):
        over_ns = extend(client, 0.9)
        protect(client, root / "web")
        guard.send(signal.SIGKILL)
        guard.process.wait(20)
        past(over_ns - NS_PER_S)
        _, second = make(again=True)
        assert "watchdog=1s:not_fed_yet" in second.connect().hello
        until(lambda: device.reset_ns)
    assert device.reset_ns <= over_ns
    assert device.opened == 1


@pytest.fixture
def left_running(
    make: Callable[..., tuple[Device, GuardProcess]], root: Path
) -> tuple[Device, Callable[..., GuardProcess]]:
    """A device of six seconds that must not be fed any more, and which takes a while to fire yet; the next guard."""
    device, guard = make(longest_s=6, least_s=6)
    client = guard.connect()
    with sleeper(root / "web"):
        over_ns = extend(client, 5.8)
        protect(client, root / "web")
        guard.send(signal.SIGKILL)
        guard.process.wait(20)
    past(over_ns - 6 * NS_PER_S)
    return device, lambda longest_s=6: make(longest_s=longest_s, again=True)[1]


def test_a_device_that_was_left_alone_is_taken_up_with_a_later_deadline(
    left_running: tuple[Device, Callable[..., GuardProcess]],
) -> None:
    device, following = left_running
    client = following().connect()
    extend(client, 20)
    until(lambda: device.opened == 2)
    assert device.asked == ["getsupport", "settimeout 1", "gettimeout", "getsupport", "gettimeout"]
    assert device.reset_ns == 0
    client.close()


def test_a_device_that_was_left_alone_is_taken_up_and_disarmed_once_nothing_is_protected(
    left_running: tuple[Device, Callable[..., GuardProcess]],
) -> None:
    device, following = left_running
    guard = following()
    client = guard.connect()
    assert client.ask("QUIT").startswith("ERR protecting ")
    assert client.ask("WHOLE") == "OK"
    until(lambda: "watchdog=6s:stand_in" in guard.connect().hello)
    assert client.ask("QUIT") == "OK"
    until(lambda: not device.armed)
    assert device.reset_ns == 0


def test_a_guard_that_refuses_the_device_does_not_disarm_it_for_its_predecessor(
    make: Callable[..., tuple[Device, GuardProcess]], root: Path
) -> None:
    device, guard = make(longest_s=2, least_s=2)
    client = guard.connect()
    with sleeper(root / "web"):
        over_ns = extend(client, 20)
        protect(client, root / "web")
        guard.send(signal.SIGKILL)
        guard.process.wait(20)
        _, second = make(longest_s=1, again=True)
        assert second.answer.startswith("ERR the watchdog device grants 2 s")
        assert second.process.wait(20) == 1
        until(lambda: device.reset_ns)
    assert device.reset_ns <= over_ns


def test_a_guard_protects_nothing_by_a_device_that_it_could_not_take_up(
    start_guard: START, root: Path, tmp_path: Path
) -> None:
    """Nor does the note of the guard before it make up for that."""
    (tmp_path / "guard.sock.armed").touch()
    guard = start_guard(f"--watchdog={tmp_path / 'none'}", "--watchdog-timeout=1", "--watchdog-longest=2")
    client = guard.connect()
    with sleeper(root / "web"):
        extend(client, 60)
        assert client.ask(f"PROTECT web 1 {root / 'web'}").startswith("ERR watchdog ")
    assert client.ask("STATUS").split(" ")[-1] == "0"


def test_a_guard_protects_by_a_device_that_was_left_alone_once_it_may_take_it_up(
    make: Callable[..., tuple[Device, GuardProcess]], root: Path, tmp_path: Path
) -> None:
    (tmp_path / "guard.sock.armed").touch()
    device, guard = make()
    client = guard.connect()
    assert "watchdog=2s:not_fed_yet" in client.hello
    with sleeper(root / "web"):
        extend(client, 60)
        protect(client, root / "web")
    assert device.opened == 1


@pytest.mark.parametrize("note", ["", "what is this", "x" * 200])
def test_a_note_that_says_nothing_is_taken_for_the_worst(
    note: str, make: Callable[..., tuple[Device, GuardProcess]], tmp_path: Path
) -> None:
    (tmp_path / "guard.sock.armed").write_text(note)
    device, guard = make()
    client = guard.connect()
    assert client.ask("QUIT").startswith("ERR protecting ")
    assert device.opened == 0
    assert client.ask("WHOLE") == "OK"
    until(lambda: device.asked[-1:] == ["gettimeout"])


def test_a_note_of_an_earlier_start_of_the_host_is_over(
    make: Callable[..., tuple[Device, GuardProcess]], tmp_path: Path
) -> None:
    (tmp_path / "guard.sock.armed").write_text(f"{'0' * 8}-0000-0000-0000-{'0' * 12} {'9' * 19} {6:010d}\n")
    device, guard = make()
    assert guard.connect().ask("QUIT") == "OK"
    until(lambda: device.opened == 1 and not device.armed)


def test_an_older_deadline_puts_off_nothing_and_none_does_by_more_than_a_minute(
    make: Callable[..., tuple[Device, GuardProcess]], root: Path
) -> None:
    device, guard = make()
    client = guard.connect()
    with sleeper(root / "web"):
        over_ns = extend(client, 0.9)
        protect(client, root / "web")
        deadline_ns = over_ns - int(LATE_S * NS_PER_S)
        assert client.ask(f"DEADLINE {deadline_ns - 1} {over_ns + 9 * NS_PER_S}") == f"OK {deadline_ns}"
        assert client.ask(f"DEADLINE {deadline_ns + 1} {over_ns + 90 * NS_PER_S}").startswith("ERR malformed ")
        past(over_ns - NS_PER_S)
        guard.send(signal.SIGKILL)
        until(lambda: device.reset_ns)
    assert device.reset_ns <= over_ns
