"""`outlive simulate`: its object, its exit codes, what it shows of a violation, and scenarios."""

import json
import math
import os
import pty
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from outlive.cli import main, simulate_seeds
from outlive.native import outlive_command
from outlive.sim import campaign, chance
from outlive.sim.campaign import Outcome

SCENARIOS = Path(__file__).parent.parent / "scenarios"

SEED_S = chance.SETTLE_S + chance.FAULTS_S + chance.CALM_S


def last_object(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert isinstance(told, dict)
    return told


def test_object_counts_seeds_violations_hours_and_speed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["simulate", "--seeds", "2", "--hosts", "2", "--jobs", "1", "--json"]) == 0
    told = last_object(capsys)
    assert (told["seeds"], told["hosts"], told["violations"], told["found"]) == (2, 2, 0, [])
    assert told["simulated_hours"] == pytest.approx(2 * SEED_S / 3600, abs=0.002)
    assert float(str(told["simulated_s_per_wall_s"])) > 1.0


def broken_seed(first: int, count: int, hosts: int, jobs: int) -> Iterator[Outcome]:
    for seed in range(first, first + count):
        wrong = ("never_two", 12.5, "a acts while b still does") if seed % 2 else None
        yield Outcome(seed, 10.0, wrong, f"seed {seed}: the timeline")


def test_violation_ends_with_1_and_shows_how_to_see_it_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign, "run_seeds", broken_seed)
    assert main.run(["simulate", "--seeds", "10", "--hosts", "3"]) == 1
    told = capsys.readouterr().out
    assert "seed 1: the timeline" in told
    assert "Again: outlive simulate --seed 1 --hosts 3" in told
    assert "in these seeds too: 7, 9" in told
    assert "a rule was broken in 5 of them" in told


def test_violations_are_in_the_object_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "run_seeds", broken_seed)
    assert main.run(["simulate", "--seeds", "2", "--json"]) == 1
    told = last_object(capsys)
    assert told["violations"] == 1
    wrong = {"seed": 1, "checker": "never_two", "at_s": 12.5, "text": "a acts while b still does"}
    assert told["found"] == [wrong | {"faults": [], "planned": 0}]


def test_what_is_shown_of_a_violation_needs_only_the_faults_that_it_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_seed(seed: int, hosts: int, faults_s: float = 0.0, only: Sequence[int] | None = None) -> Outcome:
        faults = tuple(range(20) if only is None else only)
        wrong = ("never_two", 12.5, "both") if {3, 12} <= {*faults} else ("another", 1.0, "x") if 5 in faults else None
        return Outcome(seed, 10.0, wrong, f"{len(faults)} faults", faults, 20)

    monkeypatch.setattr(campaign, "run_seed", run_seed)
    assert main.run(["simulate", "--seeds", "1", "--first-seed", "270", "--jobs", "1", "--json"]) == 1
    found, told = capsys.readouterr()
    assert json.loads(found.splitlines()[-1])["found"][0]["faults"] == [3, 12]
    assert "2 faults\nAgain: outlive simulate --seed 270 --hosts 5 --faults 3,12" in told


def test_one_seed_is_run_with_only_the_faults_that_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["simulate", "--seed", "4", "--hosts", "3", "--faults", "0"]) == 0
    assert " world" in capsys.readouterr().out
    assert main.run(["simulate", "--seed", "4", "--hosts", "3", "--faults", "999"]) == 2
    assert "has no fault 999" in capsys.readouterr().err


def test_a_campaign_goes_on_where_its_log_ends(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran: list[range] = []

    def run(first: int, count: int, hosts: int, jobs: int) -> Iterator[Outcome]:
        ran.append(range(first, first + count))
        if len(ran) == 2:
            raise KeyboardInterrupt
        return broken_seed(first, count, hosts, jobs) if first == 0 else (Outcome(first, 10.0) for _ in range(count))

    monkeypatch.setattr(campaign, "run_seeds", run)
    monkeypatch.setattr(simulate_seeds, "PIECE_SEEDS", 4)
    words = ["simulate", "--seeds", "10", "--hosts", "3", "--log", str(tmp_path / "log")]
    assert main.run(words) == 130
    assert main.run(words) == 1
    assert ran == [range(4), range(4, 8), range(4, 8), range(8, 10)]
    assert "10 seeds of 3 hosts in 3 pieces" in capsys.readouterr().out
    assert main.run([*words, "--json"]) == 1
    assert (len(ran), last_object(capsys)["broken"]) == (4, [1, 3])


def test_hours_are_filled_with_seeds(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def count(first: int, count: int, hosts: int, jobs: int) -> Iterator[Outcome]:
        asked.append(count)
        return (Outcome(seed, SEED_S) for seed in range(count))

    monkeypatch.setattr(campaign, "run_seeds", count)
    assert main.run(["simulate", "--hours", "1", "--json"]) == 0
    assert asked == [math.ceil(3600 / SEED_S)]
    assert float(str(last_object(capsys)["simulated_hours"])) >= 1.0


def test_one_seed_shows_its_timeline(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["simulate", "--seed", "4", "--hosts", "3"]) == 0
    assert "leader.elected" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["--seeds", "2", "--seed", "1"],
        ["--seeds", "0"],
        ["--hours", "0"],
        ["--accept"],
        ["--jobs", "many"],
        ["--faults", "1"],
        ["--seed", "1", "--faults", "one"],
        ["--seed", "1", "--log", "x"],
    ],
)
def test_what_makes_no_sense_is_usage(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main.run(["simulate", *words]) == 2


def test_scenario_shows_its_timeline_and_whether_it_is_as_expected(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    script = tmp_path / "mine.scenario"
    script.write_text((SCENARIOS / "verdict-dead.scenario").read_text())
    assert main.run(["simulate", "--scenario", str(script), "--accept"]) == 0
    shown = capsys.readouterr().out
    assert "verdict.dead" in shown
    assert (tmp_path / "mine.expected").read_text() == shown
    (tmp_path / "mine.expected").write_text("something else\n")
    assert main.run(["simulate", "--scenario", str(script), "--json"]) == 1
    told = last_object(capsys)
    assert (told["violations"], told["as_expected"]) == (0, False)


def test_bad_scenario_is_usage_and_names_the_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    script = tmp_path / "mine.scenario"
    script.write_text("hosts a b\nat 5 s: crush a\n")
    assert main.run(["simulate", "--scenario", str(script)]) == 2
    assert "Line 2 of mine.scenario" in capsys.readouterr().err


def test_interrupt_ends_it_at_once_with_what_was_done_so_far() -> None:
    ours, terminal = pty.openpty()
    command = [*outlive_command("simulate", "--seeds", "100000", "--hosts", "3", "--jobs", "2")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=terminal, start_new_session=True)
    os.close(terminal)
    try:
        shown = b""
        while b" seeds, " not in shown:
            shown += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        began_at = time.monotonic()
        while process.poll() is None and time.monotonic() - began_at < 60.0:
            try:
                shown += os.read(ours, 4096)
            except OSError:
                break
        assert process.wait(60.0) == 130
        assert b"Stopped after" in shown
    finally:
        process.kill()
        process.wait()
        os.close(ours)
