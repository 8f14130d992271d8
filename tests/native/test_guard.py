"""The guard ends what its host acts for when the deadline has passed, whoever is dead, stopped or talking nonsense."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .guarding import Client, GuardProcess, Namespace, boot_ns, populated, sleeper, succeeding, until

START = Callable[..., GuardProcess]

TALKING_AGENT = """
import socket, sys, time
guard = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
guard.connect(sys.argv[1])
guard.recv(4096)
while True:
    deadline = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 1_500_000_000
    guard.send(f"DEADLINE {deadline}".encode()); guard.recv(4096)
    guard.send(f"PROTECT web 1 {sys.argv[2]}".encode()); print(guard.recv(4096).decode(), flush=True)
    time.sleep(0.1)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_a_killed_or_stopped_agent_does_not_keep_its_workload_alive(
    end: signal.Signals, guard: GuardProcess, root: Path
) -> None:
    with sleeper(root / "web" / "module") as module:
        agent = subprocess.Popen(
            [sys.executable, "-c", TALKING_AGENT, str(guard.path), str(root / "web")], stdout=subprocess.PIPE
        )
        assert agent.stdout is not None
        try:
            for _ in range(20):  # two seconds, in which the deadline would have passed without the agent
                assert agent.stdout.readline() == b"OK\n"
            assert module.poll() is None
            agent.send_signal(end)
            assert module.wait(60) == -signal.SIGKILL
        finally:
            agent.kill()
            agent.communicate()
    until(lambda: guard.connect().entries() == {"web 1": "fired"})


def test_a_guard_that_was_stopped_fires_on_waking_before_it_hears_anyone(
    guard: GuardProcess, client: Client, root: Path
) -> None:
    with sleeper(root / "web") as module:
        deadline_ns = client.extend(2.0)
        assert client.ask(f"PROTECT web 3 {root / 'web'}") == "OK"
        guard.send(signal.SIGSTOP)
        client.socket.send(f"DEADLINE {deadline_ns + 3600 * 10**9 // 2}".encode())
        until(lambda: boot_ns() > deadline_ns + 200_000_000)
        assert module.poll() is None
        guard.send(signal.SIGCONT)
        assert module.wait(60) == -signal.SIGKILL
        heard = {client.hear().split(" ")[0], client.hear().split(" ")[0]}
    assert heard == {"FIRED", "OK"}
    assert client.entries() == {"web 3": "fired"}


def test_a_later_deadline_revives_nothing_that_fired_until_it_is_released(client: Client, root: Path) -> None:
    with sleeper(root / "web"):
        client.extend(1.0)
        assert client.ask(f"PROTECT web 3 {root / 'web'}") == "OK"
        assert client.hear().startswith("FIRED web 3 ")
    client.extend(600)
    assert client.ask(f"PROTECT web 3 {root / 'web'}").startswith("ERR fired ")
    assert client.ask(f"PROTECT web 4 {root / 'web'}").startswith("ERR fired ")
    assert client.ask("RELEASE web 2").startswith("ERR generation ")
    assert client.ask("RELEASE web 3") == "OK"
    assert client.ask(f"PROTECT web 4 {root / 'web'}") == "OK"
    assert client.entries() == {"web 4": "protected"}


def test_the_deadline_never_moves_back(client: Client, root: Path) -> None:
    later = client.extend(600)
    assert client.ask(f"DEADLINE {boot_ns() + 10**9}") == f"OK {later}"
    assert client.ask("DEADLINE 1") == f"OK {later}"
    assert client.ask("DEADLINE 0") == f"OK {later}"
    assert client.ask(f"DEADLINE {boot_ns() + 2 * 3600 * 10**9}").startswith("ERR malformed ")
    with sleeper(root / "web") as module:
        assert client.ask(f"PROTECT web 1 {root / 'web'}") == "OK"
        time.sleep(1.2)
        assert module.poll() is None


def test_nothing_is_protected_without_a_deadline_in_force(client: Client, root: Path) -> None:
    (root / "web").mkdir()
    assert client.ask(f"PROTECT web 1 {root / 'web'}").startswith("ERR expired ")
    assert client.ask(f"DEADLINE {boot_ns() - 1}").startswith("OK ")
    assert client.ask(f"PROTECT web 1 {root / 'web'}").startswith("ERR expired ")
    client.extend(600)
    assert client.ask(f"PROTECT web 1 {root / 'web'}") == "OK"


def test_an_older_generation_does_not_replace_a_newer_one(client: Client, root: Path) -> None:
    (root / "web").mkdir()
    client.extend(600)
    assert client.ask(f"PROTECT web 5 {root / 'web'}") == "OK"
    assert client.ask(f"PROTECT web 4 {root / 'web'}").startswith("ERR generation ")
    assert client.ask(f"PROTECT web 5 {root / 'web'} 10.1.2.3/32%v0") == "OK"
    assert client.ask(f"PROTECT web 6 {root / 'web'}") == "OK"
    assert client.entries() == {"web 6": "protected"}


def test_what_still_runs_cannot_be_released_or_forgotten_for_another_cgroup(client: Client, root: Path) -> None:
    (root / "other").mkdir()
    client.extend(600)
    with sleeper(root / "web" / "module"):
        assert client.ask(f"PROTECT web 1 {root / 'web'}") == "OK"
        assert client.ask("RELEASE web 1").startswith("ERR populated ")
        assert client.ask(f"PROTECT web 2 {root / 'other'}").startswith("ERR populated ")
        assert client.ask("QUIT").startswith("ERR protecting ")
        assert client.entries() == {"web 1": "protected"}
    until(lambda: not populated(root / "web"))
    assert client.ask("RELEASE web 1") == "OK"
    assert client.ask("RELEASE web 1") == "OK"
    assert client.entries() == {}


def test_a_cgroup_that_cannot_be_killed_is_refused(client: Client, root: Path, tmp_path: Path) -> None:
    client.extend(600)
    assert client.ask(f"PROTECT web 1 {root / 'missing'}").startswith("ERR cgroup ")
    assert client.ask(f"PROTECT web 1 {tmp_path}").startswith("ERR cgroup ")
    assert client.ask(f"PROTECT web 1 {root.parent}").startswith("ERR cgroup ")
    assert client.ask("PROTECT web 1 relative/path").startswith("ERR cgroup ")
    assert client.ask("PROTECT web 1 /" + "x" * 600).startswith("ERR cgroup ")


def test_the_guard_refuses_to_guard_the_cgroup_that_it_lives_in(start_guard: START, root: Path) -> None:
    (root / "web" / "guard").mkdir(parents=True)
    guard = start_guard(f"--cgroup={root / 'web' / 'guard'}")
    client = guard.connect()
    client.extend(600)
    assert str(guard.process.pid) in (root / "web" / "guard" / "cgroup.procs").read_text().split()
    assert client.ask(f"PROTECT web 1 {root / 'web'}").startswith("ERR cgroup ")


@pytest.mark.parametrize("options", [(), ("--no-cgroup-kill",)])
def test_everything_below_the_cgroup_ends_also_without_cgroup_kill(
    options: tuple[str, ...], start_guard: START, root: Path
) -> None:
    guard = start_guard(*options)
    client = guard.connect()
    client.extend(600)
    with sleeper(root / "web" / "a") as one, sleeper(root / "web" / "b" / "c" / "d") as other:
        assert client.ask(f"PROTECT web 1 {root / 'web'}") == "OK"
        assert client.ask("FENCE web 2").startswith("ERR generation ")
        assert client.ask("FENCE nothing 1").startswith("ERR unknown ")
        assert client.ask("FENCE web 1") == "OK"
        assert client.hear().startswith("FIRED web 1 ")
        assert not populated(root / "web")
        assert (one.wait(60), other.wait(60)) == (-signal.SIGKILL, -signal.SIGKILL)
    assert guard.alive()


def test_a_cgroup_made_again_under_its_name_is_the_one_that_is_killed(client: Client, root: Path) -> None:
    (root / "web").mkdir()
    client.extend(600)
    assert client.ask(f"PROTECT web 1 {root / 'web'}") == "OK"
    (root / "web").rmdir()
    with sleeper(root / "web") as module:
        assert client.ask("RELEASE web 1").startswith("ERR populated ")
        assert client.ask("FENCE web 1") == "OK"
        assert client.hear().startswith("FIRED web 1 ")
        assert module.wait(60) == -signal.SIGKILL


def test_a_cgroup_that_is_gone_is_empty(client: Client, root: Path) -> None:
    (root / "web").mkdir()
    client.extend(600)
    assert client.ask(f"PROTECT web 1 {root / 'web'}") == "OK"
    (root / "web").rmdir()
    assert client.ask("FENCE web 1") == "OK"
    assert client.hear().startswith("FIRED web 1 ")
    assert client.ask("RELEASE web 1") == "OK"


def test_addresses_are_gone_from_wherever_they_are(start_guard: START, namespace: Namespace, root: Path) -> None:
    guard = start_guard(namespace=namespace)
    client = guard.connect()
    for words in (("10.9.0.5/32", "v0"), ("10.9.0.5/24", "v1"), ("10.9.0.6/24", "v1"), ("169.254.7.7/16", "v1")):
        namespace.ip("addr", "add", words[0], "dev", words[1])
    for words in (("fd09::5/64", "v0"), ("fd09::6/64", "v0"), ("fe80::7/64", "v0"), ("fe80::7/64", "v1")):
        namespace.ip("addr", "add", words[0], "dev", words[1], "nodad")
    with sleeper(root / "web"):
        client.extend(0.3)
        protect = f"PROTECT web 1 {root / 'web'} 10.9.0.5/32%v0 169.254.7.7/16%v0 fd09::5/128%gone fe80::7/64%v0"
        assert client.ask(protect) == "OK"
        assert client.hear().startswith("FIRED web 1 ")
    left = {"10.9.0.6/24", "169.254.7.7/16", "fd09::6/64", "fe80::7/64"}
    assert namespace.addresses() == left
    assert "fe80::7" not in namespace.ip("addr", "show", "dev", "v0")


def test_what_an_agent_does_after_the_deadline_is_undone_until_released(
    start_guard: START, namespace: Namespace, root: Path
) -> None:
    guard = start_guard(namespace=namespace)
    client = guard.connect()
    (root / "web").mkdir()
    client.extend(600)
    assert client.ask(f"PROTECT web 1 {root / 'web'} 10.9.0.5/32%v0 fd09::5/128%v0") == "OK"
    assert client.ask("FENCE web 1") == "OK"
    assert client.hear().startswith("FIRED web 1 ")
    namespace.ip("addr", "add", "10.9.0.5/24", "dev", "v1")
    namespace.ip("addr", "add", "fd09::5/64", "dev", "v0", "nodad")
    until(lambda: namespace.addresses() == set())
    late = subprocess.Popen(["sh", "-c", f"echo 0 > {root / 'web' / 'cgroup.procs'}; exec sleep 1000"])
    assert late.wait(60) == -signal.SIGKILL
    until(lambda: client.ask("RELEASE web 1") == "OK")
    namespace.ip("addr", "add", "10.9.0.5/24", "dev", "v1")
    time.sleep(0.1)
    assert namespace.addresses() == {"10.9.0.5/24"}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that can be frozen: who then writes to it cannot even be killed."""
    image, folder = tmp_path / "image", tmp_path / "disk"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(8 * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
    yield folder
    subprocess.run(["fsfreeze", "-u", str(folder)], stderr=subprocess.DEVNULL)
    subprocess.run(["umount", "-l", str(folder)], check=True)


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("options", [(), ("--no-cgroup-kill",)])
def test_the_run_lock_is_let_go_only_after_all_that_may_still_write(
    options: tuple[str, ...], start_guard: START, namespace: Namespace, root: Path, disk: Path
) -> None:
    client = start_guard(*options, namespace=namespace).connect()
    client.extend(600)
    namespace.ip("addr", "add", "10.9.0.5/32", "dev", "v0")
    subprocess.run(["fsfreeze", "-f", str(disk)], check=True)
    with sleeper(root / "web" / "idle") as idle, sleeper(root / "web" / "_runner" / "lock") as holder:
        enter = f"echo 0 > {root}/web/busy/cgroup.procs && echo data > {disk}/data"
        (root / "web" / "busy").mkdir()
        writer = subprocess.Popen(["sh", "-c", enter])
        # It also waits a moment while it changes its group, and could still be killed there.
        procs = root / "web" / "busy" / "cgroup.procs"
        until(lambda: str(writer.pid) in procs.read_text().split() and state(writer.pid) == "D")
        assert client.ask(f"PROTECT web 1 {root / 'web'} 10.9.0.5/32%v0") == "OK"
        assert client.ask("FENCE web 1") == "OK"
        assert client.hear().startswith("STUCK web 1 ")
        assert idle.wait(60) == -signal.SIGKILL
        assert namespace.addresses() == set()
        assert client.entries() == {"web 1": "firing"}
        assert client.ask("RELEASE web 1").startswith("ERR firing ")
        assert holder.poll() is None
        subprocess.run(["fsfreeze", "-u", str(disk)], check=True)
        assert client.hear().startswith("FIRED web 1 ")
        assert (writer.wait(60), holder.wait(60)) == (-signal.SIGKILL, -signal.SIGKILL)


def test_signals_end_a_guard_only_while_it_protects_nothing(guard: GuardProcess, client: Client, root: Path) -> None:
    client.extend(600)
    with sleeper(root / "web"):
        assert client.ask(f"PROTECT web 1 {root / 'web'}") == "OK"
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGPIPE, signal.SIGALRM):
            guard.send(number)
        assert client.entries() == {"web 1": "protected"}
        assert client.ask("FENCE web 1") == "OK"
        assert client.hear().startswith("FIRED web 1 ")
    guard.send(signal.SIGTERM)
    assert guard.process.wait(60) == 0
    assert not guard.path.exists()


def test_a_guard_ends_on_request_once_it_protects_nothing(guard: GuardProcess, client: Client) -> None:
    assert client.ask("QUIT") == "OK"
    assert guard.process.wait(60) == 0


def test_there_is_one_guard_on_a_socket(guard: GuardProcess, client: Client, start_guard: START) -> None:
    second = start_guard()
    assert second.answer.startswith("ERR another guard ")
    assert second.process.wait(60) == 3
    Path(f"{guard.path}.lock").unlink()
    third = start_guard()
    assert third.answer.startswith("ERR another guard listens")
    assert third.process.wait(60) == 3
    assert client.entries() == {}


def test_a_guard_takes_the_place_of_a_dead_one(guard: GuardProcess, start_guard: START) -> None:
    guard.send(signal.SIGKILL)
    guard.process.wait()
    assert guard.path.exists()
    second = succeeding(start_guard)
    assert second.answer == f"OK {second.process.pid}"
    assert second.connect().entries() == {}


def test_a_new_client_gets_in_past_any_number_that_are_silent(guard: GuardProcess) -> None:
    silent = [guard.connect() for _ in range(40)]
    assert guard.connect().entries() == {}
    assert silent[0].socket.recv(10) == b""


def test_other_users_are_not_heard(guard: GuardProcess) -> None:
    guard.path.chmod(0o666)
    for folder in guard.path.parents[:-1]:
        folder.chmod(folder.stat().st_mode | 0o011)
    child = os.fork()
    if child == 0:
        os.setresuid(65534, 65534, 65534)
        stranger = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stranger.settimeout(60)
        stranger.connect(str(guard.path))
        os._exit(0 if stranger.recv(4096) == b"" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert guard.connect().hello.startswith("HELLO 1 ")


def test_the_table_has_an_end_and_all_of_it_can_be_told(client: Client, root: Path) -> None:
    (root / "web").mkdir()
    client.extend(600)
    addresses = " ".join(f"fd09:1111:2222:3333:4444:5555:6666:{number:x}/128%interface-name0" for number in range(16))
    for number in range(1024):
        assert client.ask(f"PROTECT w{number:062} 1 {root / 'web'} {addresses}") == "OK"
    assert client.ask(f"PROTECT more 1 {root / 'web'}").startswith("ERR full ")
    assert client.ask(f"PROTECT {'w':063} 1 {root / 'web'} {addresses} 10.0.0.1/32%v0").startswith("ERR malformed ")
    assert len(client.entries()) == 1024


def test_a_guard_short_of_descriptors_says_so_and_goes_on(start_guard: START, root: Path, tmp_path: Path) -> None:
    (root / "web").mkdir()
    guard = start_guard()
    client = guard.connect()
    client.extend(600)
    subprocess.run(["prlimit", f"--pid={guard.process.pid}", "--nofile=20:20"], check=True)
    answers = [client.ask(f"PROTECT w{number} 1 {root / 'web'}") for number in range(20)]
    assert "OK" in answers
    assert answers[-1].startswith("ERR cgroup ")
    assert "OK" not in answers[answers.index(answers[-1]) :]
    waiting = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    waiting.connect(str(guard.path))
    assert client.ask("RELEASE w0 1") == "OK"
    waiting.settimeout(60)
    assert waiting.recv(4096).startswith(b"HELLO ")
    waiting.close()


def test_hello_and_log_say_what_could_not_be_had(start_guard: START) -> None:
    guard = start_guard("--priority=0")
    hello = dict(field.split("=") for field in guard.connect().hello.split(" ")[2:])
    assert hello["pid"] == str(guard.process.pid)
    assert hello["priority"] == "normal"
    assert set(hello) == {"pid", "memory", "priority", "oom", "watchdog"}
    assert hello["watchdog"] == "none"
    until(lambda: f"guard.started pid={guard.process.pid} memory=" in guard.log.read_text())


def test_options_that_make_no_sense_are_refused(tmp_path: Path, start_guard: START) -> None:
    assert start_guard("--priority=100").process.wait(60) == 2
    assert start_guard("--no-such-option").process.wait(60) == 2
    assert start_guard("and-a-word").process.wait(60) == 2
    far = start_guard(f"--socket={tmp_path}/{'x' * 120}")
    assert far.answer == "ERR the socket's path is longer than 107 bytes"
    assert start_guard("--socket=guard.sock").answer == "ERR the socket's path is not absolute"
