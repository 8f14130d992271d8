"""`outlive package …`: the configuration packages that workloads run from."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

import click
from click.shell_completion import CompletionItem

from .connect import cluster_options, dry_run_option, query, say, tell_commands
from .output import json_option, print_json, stdout_console

if TYPE_CHECKING:
    from outlive.client import Client

PIECE_BYTES = 256 * 1024
POLL_S = 0.2


def _pushed(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The packages that begin so; none when no agent answers in time."""
    from outlive.errors import OutliveError

    from .connect import connect

    try:
        client = connect(ctx.params.get("socket"), ctx.params.get("lab"))
        keys = [f"{each['name']}@{each['version']}" for each in client.pages("/v1/packages", "packages")]
    except OutliveError:
        return []
    return [CompletionItem(key) for key in keys if key.startswith(incomplete)]


@click.group()
def command() -> None:
    """Push configuration packages, and see which host has which.

    A package is a folder with a package.toml. A workload names it, as in `package = "web@^1.2"`; it is installed
    wherever the workload goes, before it starts.
    """


@command.command(short_help="Push a package to the cluster.")
@click.argument("source", type=click.Path(exists=True, path_type=Path), metavar="FOLDER_OR_ARCHIVE")
@click.option("--copies", type=click.IntRange(1, 100), metavar="N", help="Hosts that keep it; else 2, or all of 3.")
@click.option("--wait", "wait_s", type=float, default=0.0, help="Seconds to wait until all its copies are made.")
@cluster_options
@json_option
def push(client: "Client", source: Path, copies: int | None, wait_s: float, as_json: bool) -> None:
    """Make a package of a FOLDER with a package.toml, or take its ARCHIVE, and push it to the cluster.

    A version never changes: what differs needs a version of its own. Nothing that runs changes by this; `outlive apply
    --upgrade` brings a workload to it.
    """
    import tempfile

    path = f"/v1/packages?copies={copies}" if copies else "/v1/packages"
    if source.is_dir():
        from outlive.depot.archive import build_archive

        with tempfile.TemporaryFile(prefix="outlive-package-") as archive:
            manifest = build_archive(source, archive)
            say(f"{manifest.name}@{manifest.version}: {_count(len(manifest.files))}, {_size(manifest.bytes)}.")
            answer = _send(client, path, archive)
    else:
        with source.open("rb") as archive:
            answer = _send(client, path, archive)
    key = f"{answer['package']['name']}@{answer['package']['version']}"
    if wait_s > 0:
        answer["package"] = _until_spread(client, key, wait_s)
    if as_json:
        print_json(answer)
    elif answer["changed"]:
        click.echo(f"Pushed {key}.")
    else:
        say(f"{key} is there already.")


def _send(client: "Client", path: str, archive: BinaryIO) -> dict[str, Any]:
    from .copying import CopyLine

    total = archive.seek(0, 2)
    archive.seek(0)
    line = CopyLine()
    line.begin(time.monotonic(), 0, "sending")

    def pieces() -> Iterator[bytes]:
        done = 0
        while piece := archive.read(PIECE_BYTES):
            yield piece
            done += len(piece)
            if total > 16 * PIECE_BYTES:
                line.tell(done, total, time.monotonic())

    try:
        answer: dict[str, Any] = client.upload(path, pieces())
        return answer
    finally:
        line.end()


def _until_spread(client: "Client", key: str, wait_s: float) -> dict[str, Any]:
    """Wait until a package is on as many hosts as it is to be. Raises NotInTime."""
    from .waiting import NotInTime

    deadline = time.monotonic() + wait_s
    while True:
        shown: dict[str, Any] = client.get(_path(key))
        if len(set(shown["held_by"]) & set(shown["hosts"])) >= shown["copies"]:
            return shown
        if time.monotonic() > deadline:
            raise NotInTime(
                f"{key} is on {len(shown['held_by'])} of {shown['copies']} hosts after {wait_s:g} s.",
                cause="; ".join(f"{host}: {why}" for host, why in sorted(shown["troubles"].items())),
                remedy=f"it goes on by itself; see `outlive package show {key}`",
            )
        time.sleep(POLL_S)


def _path(name: str) -> str:
    return f"/v1/packages/{quote(name, safe='@')}"


@command.command(short_help="List packages.")
@cluster_options
@json_option
def ls(client: "Client", as_json: bool) -> None:
    """List all packages that were pushed: their versions, who has them, and what uses them."""
    packages = list(client.pages("/v1/packages", "packages"))
    if as_json:
        print_json({"packages": packages})
    elif not packages:
        say("There are no packages yet; push one with `outlive package push FOLDER`.")
    else:
        _table(packages)


def _table(packages: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("PACKAGE", "VERSION", "SIZE", "HOSTS", "USED BY", "STATE"):
        table.add_column(title)
    for each in packages:
        state = "being removed" if each["removing"] else "given up" if each["failed"] else ""
        missing = sorted(set(each["hosts"]) - set(each["held_by"]))
        state = state or (f"on its way to {', '.join(missing)}" if missing else "kept")
        cells = (
            each["name"], each["version"], _size(each["size_bytes"]), ", ".join(each["held_by"]) or "-",
            ", ".join(each["used_by"]) or "-", state,
        )  # fmt: skip
        table.add_row(*map(Text, cells))
    stdout_console().print(table)


@command.command(short_help="Show one package.")
@click.argument("name", metavar="NAME[@VERSION]", shell_complete=_pushed)
@cluster_options
@json_option
def show(client: "Client", name: str, as_json: bool) -> None:
    """Show a package: of NAME alone, its newest version."""
    shown = client.get(_path(name))
    if as_json:
        print_json(shown)
        return
    told = {
        "package": f"{shown['name']}@{shown['version']}",
        "id": shown["id"],
        "size": _size(shown["size_bytes"]),
        "needs": ", ".join(f"{name}@{wanted}" for name, wanted in shown["requires"].items()),
        "kept on": f"{', '.join(shown['held_by']) or 'no host'} ({shown['copies']} copies wanted)",
        "used by": ", ".join(shown["used_by"]),
        "given up with": "; ".join(f"{workload}: {why}" for workload, why in sorted(shown["failed"].items())),
        "not on": "; ".join(f"{host}: {why}" for host, why in sorted(shown["troubles"].items())),
        "starts with": " ".join(shown["start"]["command"]) if shown["start"] else "",
        "checked with": " ".join(shown["check"]["command"]) if shown["check"] else "",
    }
    for what, text in told.items():
        if text:
            click.echo(f"{what + ':':15}{text}")
    for file in (shown["manifest"] or {}).get("files", ()):
        click.echo(f"  {file['mode']:04o} {file['bytes']:>12,} {file['path']}")


@command.command(short_help="Remove versions of packages that nothing uses.")
@click.argument("names", nargs=-1, required=True, metavar="NAME@VERSION…", shell_complete=_pushed)
@dry_run_option
@cluster_options
@json_option
def rm(client: "Client", names: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Remove versions of packages. One that a workload or another package needs is refused."""
    results = []
    for name in names:
        results.append(client.delete(_path(name) + query(dry_run)))
        if dry_run:
            tell_commands(results[-1])
        else:
            say(f"{name} is being removed from all hosts.")
    if as_json:
        print_json({"packages": results})


def _count(files: int) -> str:
    return "1 file" if files == 1 else f"{files} files"


def _size(count: float) -> str:
    """A size for people."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
