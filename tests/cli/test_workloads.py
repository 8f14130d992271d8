"""The commands on a real cluster of one host: what each says, does, refuses and ends with."""

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from outlive.cli import main

from ..one_host import OneHost, until, workload

SLEEP = ("/usr/bin/sleep", "3600")


@pytest.fixture
def web(one_host: OneHost) -> Iterator[str]:
    one_host.apply("shown", "/bin/sh", "-c", "echo hello; exec sleep 3600")
    yield "shown"
    one_host.forget("shown")


def test_a_command_is_protected_and_let_go_of_again(one_host: OneHost) -> None:
    ran = one_host.run("run", "life", "--", *SLEEP)
    assert (ran.code, ran.out) == (0, "")
    assert "life runs on one (generation" in ran.err
    stopped = one_host.run("stop", "life", "--json")
    assert (stopped.code, stopped.json["workloads"][0]["changed"]) == (0, True)
    assert one_host.outlook("life")["state"] == "stopped"
    started = one_host.run("start", "life")
    assert (started.code, "life runs." in started.err) == (0, True)
    removed = one_host.run("rm", "life", "--yes")
    assert (removed.code, "life is forgotten." in removed.err) == (0, True)
    assert "life" not in one_host.names()


def test_status_and_ps_show_it_and_status_ends_with_the_verdict(one_host: OneHost, web: str) -> None:
    listed = one_host.run("ps")
    assert listed.code == 0
    [row] = [line.split() for line in listed.out.splitlines() if line.split()[:1] == [web]]
    assert row[:4] == [web, "running", "one", str(one_host.outlook(web)["generation"])]
    status = one_host.run("status")
    assert status.code == 5, "nothing would take over on one host"
    assert status.out.rstrip().splitlines()[-1].startswith("At risk: ")
    assert one_host.run("ps", "--json").json["workloads"] == one_host.client.get("/v1/workloads")["workloads"]
    assert one_host.run("status", "--json").json["outlook"]["sentence"] == status.out.rstrip().splitlines()[-1]


def test_logs_events_and_why_tell_what_happened(one_host: OneHost, web: str) -> None:
    until(lambda: "hello" in one_host.run("logs", web).out, "its line is there")
    line = json.loads(one_host.run("logs", web, "--json", "-n", "1").out)
    assert (line["host"], line["module"], line["text"]) == ("one", "main", "hello")
    why = one_host.run("why", web)
    kinds = [word for line in why.out.splitlines() for word in line.split() if word.startswith("workload.")]
    assert kinds[0] == "workload.applied"
    assert kinds[-1] == "workload.running"
    events = one_host.run("events", "-w", web)
    assert [line for line in events.out.splitlines() if "workload.placed" in line and "host=one" in line]
    assert one_host.run("events", "-n", "3", "--json").json["events"][-1]["id"]


def test_a_file_is_applied_and_again_and_changed(one_host: OneHost, tmp_path: Path) -> None:
    file = tmp_path / "filed.toml"
    file.write_text(workload("filed", *SLEEP))
    assert one_host.run("apply", str(file)).code == 0
    first = one_host.outlook("filed")["generation"]
    again = one_host.run("apply", str(file), "--json")
    assert "is what" in again.err
    assert [(each["workload"], each["changed"]) for each in again.json["workloads"]] == [("filed", False)]
    file.write_text(workload("filed", "/usr/bin/sleep", "3601"))
    changed = one_host.run("apply", str(file))
    assert one_host.outlook("filed")["generation"] > first
    assert f"filed runs on one (generation {one_host.outlook('filed')['generation']})." in changed.err
    one_host.forget("filed")


def test_a_change_may_be_for_one_revision_alone(one_host: OneHost, web: str) -> None:
    def revision() -> int:
        [shown] = [each for each in one_host.run("ps", "--json").json["workloads"] if each["name"] == web]
        return int(shown["revision"])

    before = revision()
    refused = one_host.run("stop", web, "--if-revision", str(before + 1000), "--json")
    assert (refused.code, refused.json["id"], refused.json["revision"]) == (3, "revision.changed", before)
    assert revision() == before
    assert one_host.run("start", web, "--if-revision", str(before), "--json").json["workloads"][0]["revision"] == before
    assert one_host.run("rm", web, "other", "--yes", "--if-revision", "1").code == 2


def test_a_file_with_mistakes_is_told_with_lines_before_anything_is_asked(one_host: OneHost, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('name = "bad"\nkind = "boat"\n\n[module.main]\ncommand = 7\n')
    ran = one_host.run("apply", str(file), "--json")
    assert ran.code == 2
    assert f"{file}:2:" in ran.err
    assert f"{file}:5:" in ran.err
    assert ran.json["id"] == "workload-file.invalid"
    assert "bad" not in one_host.names()


@pytest.mark.parametrize(
    "words",
    [
        ("run", "dry", "--", *SLEEP),
        ("stop", "shown"),
        ("rm", "shown"),
        ("failover", "shown"),
    ],
    ids=lambda words: words[0],
)
def test_dry_runs_print_the_commands_and_change_nothing(one_host: OneHost, web: str, words: tuple[str, ...]) -> None:
    before = one_host.client.get("/v1/workloads"), one_host.client.get("/v1/operations")
    told = one_host.run(words[0], "--dry-run", *words[1:])
    assert told.code == 0
    acts = [line.partition(": ") for line in told.out.splitlines()]
    assert "place" in {act for act, _, _ in acts}
    assert all(json.loads(rest) for _, _, rest in acts)
    as_json = one_host.run(words[0], "--dry-run", "--json", *words[1:]).json
    commands = as_json.get("commands") or as_json["workloads"][0]["commands"]
    assert {each["command"] for each in commands} == {act for act, _, _ in acts}
    assert (one_host.client.get("/v1/workloads"), one_host.client.get("/v1/operations")) == before


def test_migrating_where_no_other_host_is_is_refused_for_safety(one_host: OneHost, web: str) -> None:
    ran = one_host.run("migrate", web, "--json")
    assert ran.code == 3
    assert "was refused" in ran.json["title"]
    assert "no host can have it" in ran.json["detail"]
    assert one_host.outlook(web)["state"] == "running"


@pytest.mark.parametrize("words", [("failover",), ("rm",)], ids=lambda words: words[0])
def test_what_is_forced_asks_first_and_without_a_terminal_says_how(
    one_host: OneHost, web: str, words: tuple[str, ...]
) -> None:
    ran = one_host.run(*words, web)
    assert ran.code == 3
    assert "Do:  say --yes if you mean it" in ran.err
    assert one_host.outlook(web)["state"] == "running"


def test_a_person_at_a_terminal_is_asked_and_may_say_no(one_host: OneHost, web: str) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        one_host.command("failover", web), stdin=theirs, stdout=theirs, stderr=theirs, env=one_host.environment
    ) as asking:
        os.close(theirs)
        said = b""
        while b"[y/N]" not in said:
            said += os.read(ours, 4096)
        os.write(ours, b"n\n")
        assert asking.wait(60) == 130
    os.close(ours)
    assert b"Go on?" in said
    assert one_host.outlook(web)["state"] == "running"
    operations = one_host.client.get("/v1/operations")["operations"]
    assert not [each for each in operations if (each["kind"], each["workload"]) == ("failover", web)]


def test_a_forced_failover_on_the_only_host_stops_it_and_says_why_it_waits(one_host: OneHost) -> None:
    one_host.apply("forced")
    ran = one_host.run("failover", "forced", "--yes", "--wait", "3", "--json")
    assert ran.code == 1
    until(lambda: one_host.outlook("forced")["host"] is None, "it was stopped")
    assert one_host.outlook("forced")["standing"] == "at risk"
    one_host.forget("forced")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("why", "nothing"), 1, "Nothing is recorded of a workload nothing."),
        (("logs", "nothing"), 1, "There is no workload nothing."),
        (("stop", "nothing"), 1, "There is no workload nothing."),
        (("rm", "nothing"), 1, "There is no workload nothing."),
        (("migrate", "nothing"), 1, "There is no workload nothing."),
        (("failover", "nothing", "--yes"), 1, "There is no workload nothing."),
        (("start", "No/Name"), 2, "'No/Name' cannot name a workload."),
        (("migrate", "web", "--to", "?"), 2, "'?' cannot name a host."),
        (("apply", "/nonexistent.toml"), 2, "does not exist"),
        (("apply",), 2, "Missing argument"),
        (("run", "web"), 2, "Missing argument"),
        (("run", "web", "--environment", "x", "--", "/bin/true"), 2, "'x' is not NAME=VALUE"),
        (("run", "Bad_Name", "--", "/bin/true"), 2, "cannot name"),
        (("run", "web", "--cpus", "nan", "--", "/bin/true"), 2, "cpus"),
        (("run", "web", "--virtual-ip", "nowhere", "--", "/bin/true"), 2, "virtual_ip"),
        (("events", "--limit", "0"), 2, "--limit"),
        (("ps", "--socket", "/nonexistent.sock"), 4, "No agent answers at /nonexistent.sock."),
        (("status", "--lab", "none"), 1, "There is no lab 'none' here."),
    ],
)  # fmt: skip
def test_what_cannot_be_done_has_its_exit_code_and_one_sentence(
    one_host: OneHost,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    code: int,
    told: str,
) -> None:
    monkeypatch.setenv("OUTLIVE_SOCKET", one_host.socket)
    assert main.run(list(words)) == code
    said = capsys.readouterr()
    assert (said.out, told in said.err, "Traceback" in said.err) == ("", True, False), said
    options, dash, command = " ".join(words).partition(" -- ")
    assert main.run([*options.split(), "--json", *(["--", command] if dash else [])]) == code
    [problem] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (problem["exit_code"], problem["title"] != "") == (code, True)


def test_a_program_that_cannot_run_is_told_with_its_reason(one_host: OneHost) -> None:
    ran = one_host.run("run", "broken", "--wait", "2", "--", "/nonexistent/program")
    assert ran.code == 1
    assert "broken is not running after 2 s" in ran.err
    assert "  Why: " in ran.err
    assert "outlive why broken" in ran.err
    until(lambda: "/nonexistent/program" in one_host.run("events", "-w", "broken").out, "its reason is recorded")
    one_host.forget("broken")


def test_an_address_of_a_workload_comes_and_goes_with_it(one_host: OneHost) -> None:
    from ..one_host import ip

    def there() -> bool:
        return "10.88.0.77/24" in ip("-n", one_host.namespace, "addr", "show", "dev", "eth0")

    assert one_host.run("run", "addressed", "--virtual-ip", "10.88.0.77/24", "--", *SLEEP).code == 0
    assert there()
    assert one_host.run("stop", "addressed").code == 0
    assert not there()
    one_host.forget("addressed")


def test_data_is_kept_on_the_datastore_for_another_user(one_host: OneHost) -> None:
    command = "id -un > {data}/who && exec sleep 3600"
    ran = one_host.run("run", "kept", "--data-on", "local", "--user", "nobody", "--", "/bin/sh", "-c", command)
    assert ran.code == 0, ran
    who = one_host.folder / "datastore/data/kept/who"
    until(lambda: who.exists() and who.read_text() == "nobody\n", "it wrote there")
    one_host.forget("kept")
    assert who.exists(), "data folders stay"


def test_a_failed_module_is_restored_and_why_tells_it(one_host: OneHost) -> None:
    one_host.apply("fails", "/bin/sh", "-c", "sleep 1; exit 7")

    def kinds() -> list[str]:
        events = one_host.client.get("/v1/events?workload=fails&limit=5000")["events"]
        return [event["kind"] for event in events]

    until(lambda: "module.restored" in kinds(), "it was restored")
    in_order = [kind for kind in kinds() if kind in ("module.failed", "restore.ordered", "module.restored")]
    assert in_order[:3] == ["module.failed", "restore.ordered", "module.restored"]
    one_host.forget("fails")
