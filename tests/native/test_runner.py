"""A runner keeps its module's log, records its end, and takes everything of it along when it dies itself."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outlive import native, spawn

from .guarding import boot_ns, populated, until
from .running import RunnerProcess

START = Callable[..., RunnerProcess]


@pytest.fixture
def start(tmp_path: Path, root: Path) -> Iterator[START]:
    """Start a runner with a module and options; `folder` for a second one."""
    started: list[RunnerProcess] = []

    def start_one(
        *command: str, options: tuple[str, ...] = (), log: Path | None = None, folder: Path = tmp_path
    ) -> RunnerProcess:
        started.append(RunnerProcess(folder, root, *command, options=options, log=log))
        return started[-1]

    yield start_one
    for runner in started:
        runner.close()


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_output_is_kept_line_by_line_with_its_stream(start: START, tmp_path: Path) -> None:
    before_ms = time.time_ns() // 1_000_000
    after = "until grep -qs {} " + str(tmp_path / "module.log") + "; do sleep 0.02; done; "
    script = r"printf 'one\n\ntwo\n'; " + after.format("two")
    runner = start("sh", "-c", script + r"printf 'three\n' >&2; " + after.format("three") + "printf 'end'")
    assert runner.wait() == 0
    assert runner.lines() == [("o", b"one"), ("o", b""), ("o", b"two"), ("e", b"three"), ("o", b"end")]
    stamps = [int(line.split(b" ")[0]) for line in runner.log.read_bytes().splitlines()]
    assert stamps == sorted(stamps)
    assert before_ms <= stamps[0] <= time.time_ns() // 1_000_000


def test_a_line_that_is_not_ended_is_seen_while_the_module_waits(start: START) -> None:
    runner = start("sh", "-c", r"printf 'password: '; sleep 1000")
    until(lambda: runner.log.exists() and runner.lines() == [("o", b"password: ")])


def test_any_bytes_are_kept_and_long_lines_are_cut(start: START) -> None:
    every = bytes(byte for byte in range(256) if byte != 10)
    program = f"import os; os.write(1, {every!r} + b'\\n' + b'x' * 20000 + b'\\nend\\n')"
    runner = start(sys.executable, "-c", program)
    assert runner.wait() == 0
    lines = [text for _, text in runner.lines()]
    assert lines[0] == every
    assert [len(text) for text in lines[1:-1]] == [8192, 8192, 20000 - 2 * 8192]
    assert lines[-1] == b"end"


def test_logs_are_rotated_by_size_and_the_oldest_go(start: START) -> None:
    numbers = "for number in range(2000): print(f'line {number:05}')"
    runner = start(sys.executable, "-c", numbers, options=("--log-max-bytes=5000", "--log-keep=2"))
    assert runner.wait() == 0
    files = sorted(runner.log.parent.glob("module.log*"), reverse=True)
    assert [path.name for path in files] == ["module.log.2", "module.log.1", "module.log"]
    assert all(path.stat().st_size <= 5000 for path in files)
    kept = [text for path in files for _, text in runner.lines(path)]
    assert kept == [f"line {number:05}".encode() for number in range(2000 - len(kept), 2000)]
    assert len(kept) > 300


def test_a_log_that_keeps_no_old_files_starts_again(start: START) -> None:
    runner = start("seq", "1", "3000", options=("--log-max-bytes=4000", "--log-keep=0"))
    assert runner.wait() == 0
    assert [path.name for path in runner.log.parent.glob("module.log*")] == ["module.log"]
    assert runner.log.stat().st_size <= 4000
    assert runner.lines()[-1] == ("o", b"3000")


def test_a_log_that_is_taken_away_is_begun_anew(start: START) -> None:
    runner = start("sh", "-c", "while echo tick; do sleep 0.05; done")
    until(lambda: runner.log.exists() and runner.lines())
    runner.log.unlink()
    until(lambda: runner.log.exists() and runner.lines())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_costs_lines_and_nothing_else(start: START, small_disk: Path, tmp_path: Path) -> None:
    told = tmp_path / "told"
    go_on = tmp_path / "go-on"
    program = (
        "import os, time, pathlib\n"
        "for number in range(20000): os.write(1, b'line %05d\\n' % number)\n"
        f"pathlib.Path({str(told)!r}).touch()\n"
        f"while not os.path.exists({str(go_on)!r}): time.sleep(0.01)\n"
        "os.write(1, b'after\\n'); time.sleep(1000)\n"
    )
    runner = start(sys.executable, "-c", program, log=small_disk / "module.log")
    until(told.exists)
    assert not gone(runner.child)
    until(lambda: (small_disk / "module.log").stat().st_size > 50_000 and runner.is_idle())
    kept = len(runner.lines())
    runner.log.unlink()
    go_on.touch()
    until(lambda: runner.log.exists() and (b"after" in runner.log.read_bytes() or b"lost" in runner.log.read_bytes()))
    stream, owned_up = runner.lines()[0]
    assert stream == "e"
    assert owned_up == b"[outlive] %d lines (%d bytes) of output were lost: No space left on device" % (
        int(owned_up.split(b" ")[1]),
        lost_bytes(owned_up),
    )
    assert int(owned_up.split(b" ")[1]) in (20000 - kept, 20001 - kept)
    assert not gone(runner.child)


def lost_bytes(sentence: bytes) -> int:
    return int(sentence.partition(b"(")[2].split(b" ")[0])


def test_a_log_folder_that_is_missing_does_not_stop_the_module(start: START, tmp_path: Path) -> None:
    told = tmp_path / "told"
    script = f"echo first; touch {told}; while echo tick; do sleep 0.1; done"
    runner = start("sh", "-c", script, log=tmp_path / "no" / "module.log")
    assert runner.answer.startswith("OK ")
    until(lambda: told.exists() and runner.is_idle())
    (tmp_path / "no").mkdir()
    until(lambda: runner.log.exists() and runner.lines())
    assert b"output were lost: No such file or directory" in runner.lines()[0][1]


@pytest.mark.parametrize(
    ("script", "record", "status"),
    [
        ("exit 0", {"code": 0}, 0),
        ("exit 7", {"code": 7}, 7),
        ("kill -TERM $$", {"signal": 15}, -15),
        ("kill -KILL $$", {"signal": 9}, -9),
        ("kill -SEGV $$", {"signal": 11}, -11),
    ],
)
def test_how_a_module_ended_is_recorded_and_repeated(
    script: str, record: dict[str, int], status: int, start: START
) -> None:
    before_ns = boot_ns()
    runner = start("sh", "-c", script)
    assert runner.wait() == status
    told = runner.exit_record()
    at_ns = told.pop("boottime_ns")
    assert told == {**record, "emptied": True}
    assert isinstance(at_ns, int)
    assert before_ns <= at_ns <= boot_ns()


def test_state_names_runner_and_module_so_that_no_other_process_is_taken_for_them(start: START) -> None:
    runner = start("sleep", "1000")
    assert runner.state_record() == {
        "boot_id": spawn.boot_id(),
        "runner_pid": runner.process.pid,
        "runner_start_ticks": spawn.start_ticks(runner.process.pid),
        "child_pid": runner.child,
        "child_start_ticks": spawn.start_ticks(runner.child),
    }
    assert (runner.cgroup / "cgroup.procs").read_text().split() == [str(runner.child)]
    assert str(runner.process.pid) in (runner.runner_cgroup / "cgroup.procs").read_text().split()


def test_what_a_module_leaves_behind_ends_with_it(start: START) -> None:
    runner = start("sh", "-c", "setsid sleep 1000 & exit 3")
    assert runner.wait() == 3
    assert not populated(runner.cgroup)
    assert not populated(runner.runner_cgroup)


def test_a_killed_runner_takes_everything_of_the_module_along(start: START) -> None:
    runner = start("sh", "-c", "setsid sleep 1000 & setsid sleep 1000 & exec sleep 1000")
    until(lambda: len((runner.cgroup / "cgroup.procs").read_text().split()) == 3)
    runner.process.kill()
    until(lambda: gone(runner.child))
    until(lambda: not populated(runner.cgroup))
    until(lambda: not populated(runner.runner_cgroup))
    assert not (runner.state / "exit.json").exists()


def test_a_module_outlives_whoever_started_its_runner(tmp_path: Path, root: Path) -> None:
    agent = subprocess.Popen(
        [sys.executable, "-c", AGENT, str(tmp_path), str(root), str(Path(__file__).parents[2])],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert agent.stdout is not None
    runner_pid, child_pid = (int(word) for word in agent.stdout.readline().split())
    os.killpg(agent.pid, signal.SIGKILL)
    agent.communicate()
    time.sleep(0.2)
    assert not gone(runner_pid)
    assert not gone(child_pid)
    os.kill(child_pid, signal.SIGTERM)
    until((tmp_path / "state" / "exit.json").exists)
    until(lambda: gone(runner_pid))


AGENT = """
import sys, time, pathlib
sys.path.insert(0, sys.argv[3])
from tests.native.running import RunnerProcess
runner = RunnerProcess(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), "sleep", "1000")
print(runner.process.pid, runner.child, flush=True)
time.sleep(1000)
"""


def test_a_runner_that_follows_a_killed_one_starts_after_all_of_it_is_gone(start: START) -> None:
    for _ in range(5):
        killed = start("sh", "-c", "setsid sleep 1000 & setsid sleep 1000 & exec sleep 1000")
        killed.process.kill()
        next_one = start("sh", "-c", "sleep 0.1; exit 4")
        assert gone(killed.child)
        assert next_one.wait() == 4


def test_sigterm_to_the_runner_reaches_the_module_and_others_nobody(start: START) -> None:
    runner = start("sh", "-c", "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    until(lambda: runner.log.exists() and runner.lines() == [("o", b"ready")])
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
        runner.process.send_signal(number)
    time.sleep(0.2)
    assert runner.process.poll() is None
    runner.process.terminate()
    assert runner.wait() == 5
    assert runner.lines() == [("o", b"ready"), ("o", b"bye")]


def test_why_a_program_cannot_run_is_told_in_a_sentence(start: START, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no program")
    text.chmod(0o755)
    data = tmp_path / "data"
    data.write_text("no program")
    for words, options, sentence in (
        (("no-such-program",), (), "cannot run no-such-program: No such file or directory"),
        ((str(text),), (), ""),
        ((str(data),), (), f"cannot run {data}: Permission denied"),
        (("true",), (f"--cwd={tmp_path}/nowhere",), f"cannot enter the folder {tmp_path}/nowhere: No such file"),
        (("true",), (f"--cgroup={tmp_path}",), f"cannot enter the cgroup {tmp_path}: No such file or directory"),
        (("true",), ("--env-file=/no/file",), "cannot read the environment from /no/file: No such file or directory"),
    ):
        runner = start(*words, options=options)
        assert runner.answer.startswith(f"ERR {sentence}" if sentence else ("ERR ", "OK ")), runner.answer
        assert runner.wait() != 0 or not sentence
        assert not populated(runner.cgroup)
        assert not populated(runner.runner_cgroup)


def test_a_module_that_cannot_run_leaves_a_record_that_says_so(start: START) -> None:
    runner = start("/no/such/program")
    assert runner.wait() == 127
    record = runner.exit_record()
    assert record["error"] == "cannot run /no/such/program: No such file or directory"
    assert record["code"] == 127


def test_a_state_folder_has_one_runner(start: START) -> None:
    first = start("sleep", "1000")
    second = start("true")  # it waits a moment, should the first be just ending
    assert second.answer == f"ERR another runner lives in {first.state}"
    assert second.wait() == 3
    assert not gone(first.child)
    os.kill(first.child, signal.SIGTERM)
    first.wait()
    third = start("true")
    assert third.wait() == 0
    assert third.exit_record()["code"] == 0


def test_a_module_gets_its_user_limits_folder_and_environment_and_nothing_of_ours(start: START, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    environment.write_bytes(b"PATH=/usr/bin:/bin\0GREETING=two\nlines\0")
    folder = tmp_path / "folder"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    for parent in tmp_path.parents[:-1]:
        parent.chmod(parent.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    script = (
        'id -u; id -g; id -G; pwd; echo "$GREETING"; env | wc -l; ulimit -Sn; ulimit -Hn; ulimit -c; '
        "ls /proc/self/fd; readlink /proc/self/fd/0; cat /proc/self/oom_score_adj; grep SigBlk /proc/self/status; "
        "grep SigIgn /proc/self/status; umask"
    )
    options = (
        "--user=65534", "--group=65534", "--groups=7,9", f"--cwd={folder}", "--rlimit=nofile=100:200",
        "--rlimit=core=0:infinity", f"--env-file={environment}",
    )  # fmt: skip
    runner = start("bash", "-c", script, options=options)
    os.close(reading)
    os.close(writing)
    assert runner.wait() == 0
    lines = [text.decode() for _, text in runner.lines()]
    assert lines[:6] == ["65534", "65534", "65534 7 9", str(folder), "two", "lines"]
    assert int(lines[6]) <= 7  # PATH, GREETING on two lines, and what bash adds
    assert lines[7:10] == ["100", "200", "0"]
    assert lines[10:] == [
        "0", "1", "2", "3", "/dev/null", "0", "SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000", "0022",
    ]  # fmt: skip


def test_options_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    needed = (f"--state-dir={tmp_path}", f"--log={tmp_path}/log", f"--cgroup={tmp_path}")
    for words in (
        ("--", "true"),
        (*needed,),
        (*needed, "--user=1", "--", "true"),
        (*needed, "--user=x", "--group=1", "--", "true"),
        (*needed, "--rlimit=nofile=9:1", "--", "true"),
        (*needed, "--rlimit=nonsense=1:1", "--", "true"),
        (*needed, "--log-max-bytes=0", "--", "true"),
        (*needed, "--groups=1,,x", "--", "true"),
        (*needed, "--ready-fd=77", "--", "true"),
    ):
        told = subprocess.run([native.find("outlive-runner"), *words], capture_output=True, text=True, timeout=60)
        assert told.returncode == 2, words
        assert "usage: outlive-runner" in told.stderr
    told = subprocess.run(
        [native.find("outlive-runner"), *needed, "--", "true"], capture_output=True, text=True, timeout=60
    )
    assert (told.returncode, told.stderr) == (1, "ERR the cgroup is not in a cgroup2 file system\n")
