"""`outlive package` on a real cluster of one host: what is pushed, shown, refused, removed, and run."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.shell_completion import CompletionItem

from outlive.cli.package import _pushed
from outlive.errors import OutliveError

from ..one_host import OneHost, until

FILE = (
    'name = "served"\npackage = "greeter@{versions}"\n[upgrade]\nhealthy_within_s = 5\nwatch_s = 0.2\n[module.main]\n'
)


def made(folder: Path, name: str, version: str, more: str = "", **programs: str) -> Path:
    """A folder with a package of these programs."""
    content = folder / f"{name}-{version}"
    (content / "files").mkdir(parents=True)
    (content / "package.toml").write_text(f'name = "{name}"\nversion = "{version}"\n{more}')
    for program, text in programs.items():
        (content / "files" / program).write_text(f"#!/bin/sh\n{text}\n")
        (content / "files" / program).chmod(0o755)
    return content


def greeter(folder: Path, version: str, serve: str = "echo hello; exec sleep 3600") -> Path:
    needs = '[dependencies]\nwords = "^1"\n[start]\ncommand = ["./serve"]\n'
    return made(folder, "greeter", version, needs, serve=serve)


def gone(one_host: OneHost) -> bool:
    return not one_host.client.get("/v1/packages")["packages"]


@pytest.fixture
def clean(one_host: OneHost) -> Iterator[None]:
    yield
    one_host.forget("served")
    while not gone(one_host):
        for each in one_host.client.get("/v1/packages")["packages"]:
            try:
                one_host.client.delete(f"/v1/packages/{each['name']}@{each['version']}")
            except OutliveError:
                continue  # another needs it, or it is gone by now
        until(lambda: True, "the leader has looked")


@pytest.mark.usefixtures("clean")
def test_a_package_is_pushed_runs_changes_goes_back_and_is_removed(one_host: OneHost, tmp_path: Path) -> None:
    early = one_host.run("package", "push", str(greeter(tmp_path, "1.0.0")))
    assert (early.code, "There is no package words" in early.err) == (1, True)
    pushed = one_host.run("package", "push", str(made(tmp_path, "words", "1.0.0")), "--wait", "20", "--json")
    assert (pushed.code, pushed.json["changed"], pushed.json["package"]["held_by"]) == (0, True, ["one"])
    assert one_host.run("package", "push", str(tmp_path / "greeter-1.0.0")).out == "Pushed greeter@1.0.0.\n"
    again = one_host.run("package", "push", str(tmp_path / "greeter-1.0.0"))
    assert (again.code, "is there already" in again.err) == (0, True)
    (tmp_path / "greeter-1.0.0" / "files" / "other").write_text("changed")
    other = one_host.run("package", "push", str(tmp_path / "greeter-1.0.0"))
    assert (other.code, "There is another package greeter@1.0.0 already." in other.err) == (3, True)

    file = tmp_path / "served.toml"
    file.write_text(FILE.format(versions="*"))
    applied = one_host.run("apply", str(file))
    assert (applied.code, "served runs from greeter@1.0.0 on one" in applied.err) == (0, True)
    assert "greeter@1.0.0" in one_host.run("ps").out
    until(lambda: "hello" in one_host.run("logs", "served").out, "its package's program has spoken")

    used = one_host.run("package", "rm", "words@1.0.0")
    assert (used.code, "workload served, package greeter@1.0.0 needs it" in used.err) == (3, True)
    shown = one_host.run("package", "show", "greeter")
    assert "needs:         words@^1" in shown.out
    assert "0755" in shown.out
    assert [item.value for item in _pushed_like(one_host, "gre")] == ["greeter@1.0.0"]

    # A newer one is taken when it is asked for; this one is no good.
    one_host.run("package", "push", str(greeter(tmp_path, "2.0.0", "exit 3")))
    assert "is what" in one_host.run("apply", str(file)).err
    upgraded = one_host.run("apply", str(file), "--upgrade")
    assert upgraded.code == 1
    assert "served goes back to greeter@1.0.0." in upgraded.err
    assert "greeter@2.0.0 was given up" in one_host.outlook("served")["reason"]
    until(lambda: one_host.outlook("served")["state"] == "running", "it runs again")
    avoided = one_host.run("apply", str(file), "--upgrade")
    assert (avoided.code, "is what" in avoided.err) == (0, True)
    one_host.run("package", "push", str(greeter(tmp_path, "2.0.1", "exec sleep 3600")))
    mended = one_host.run("apply", str(file), "--upgrade", "--json")
    assert (mended.code, one_host.outlook("served")["package"]) == (0, "greeter@2.0.1")

    # For a moment the leader takes its own last write to that record for under way, and decides nothing on it.
    until(
        lambda: "packages/greeter@2.0.0" in one_host.run("package", "rm", "greeter@2.0.0", "--dry-run").out,
        "it is told what would be decided",
    )
    removed = one_host.run("package", "rm", "greeter@2.0.0", "greeter@1.0.0")
    assert removed.code == 0
    listed = one_host.run("package", "ls", "--json")
    until(
        lambda: {each["version"] for each in one_host.client.get("/v1/packages")["packages"]} == {"1.0.0", "2.0.1"},
        "the two are gone",
    )
    assert listed.code == 0


def _pushed_like(one_host: OneHost, incomplete: str) -> list[CompletionItem]:
    import click

    context = click.Context(click.Command("show"))
    context.params["socket"] = one_host.socket
    return list(_pushed(context, click.Argument(["name"]), incomplete))


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("push", "{folder}/none"), 2, "does not exist"),
        (("push", "{folder}"), 2, "package.toml"),
        (("push", "{folder}/bad.tar.zst"), 2, ""),
        (("show", "nothing"), 1, "There is no package nothing."),
        (("show", "nothing@latest"), 2, "'latest' is no version."),
        (("rm", "nothing@1.0.0"), 1, "There is no package nothing@1.0.0."),
        (("rm", "nothing"), 2, "Which version of nothing is to go?"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(
    one_host: OneHost, tmp_path: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    (tmp_path / "bad.tar.zst").write_bytes(b"no archive at all" * 100_000)
    ran = one_host.run("package", *(word.format(folder=tmp_path) for word in words), "--json")
    assert ran.code == code, ran.err
    assert says in ran.err
    assert json.loads(ran.out)["exit_code"] == code
