"""The table of commands, and the click group that imports a command only when it is asked for.

Here are the names and their summaries, so that the list of commands costs no import; what a command
takes and does is in its own file. A command that is in the table must be there: a missing file is a
broken installation, not a wrong word of the user.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import click

from outlive.errors import Failed

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


@dataclass(frozen=True, slots=True)
class Entry:
    """One command as the list of commands shows it; its file is `cli/<name>.py`, with `_` for `-`."""

    name: str
    section: str
    summary: str

    @property
    def module(self) -> str:
        return f"outlive.cli.{self.name.replace('-', '_')}"


_SECTIONS: Mapping[str, Mapping[str, str]] = {
    "First": {
        "demo": "Show a real virtual machine outliving its host.",
        "up": "Make this machine a cluster of one host.",
        "down": "End this machine's agent and its workloads, in order.",
        "doctor": "Check this host: each check with its result and the fix.",
    },
    "Workloads": {
        "apply": "Bring workloads to what their files say.",
        "run": "Protect a command as a workload, without writing a file.",
        "start": "Let a workload run.",
        "stop": "Stop a workload and keep it stopped.",
        "rm": "Forget a stopped workload.",
        "migrate": "Move a workload to another host, as planned work.",
        "failover": "Force a workload off its host, after a failure.",
    },
    "Machines": {
        "vm": "Make virtual machines, or take them over from libvirt.",
        "console": "Use a machine's serial console.",
        "screenshot": "Save what a machine's display shows.",
        "checkpoint": "Make a checkpoint of a machine now.",
        "checkpoints": "List a machine's checkpoints.",
        "resume": "Let a machine go on from a checkpoint.",
        "verify": "Read a machine's checkpoints and tell which are whole.",
        "network": "Make the virtual networks that machines are on.",
    },
    "Packages": {
        "package": "Push, list and remove configuration packages.",
    },
    "The cluster": {
        "maintenance": "Empty a host for work on it, and give it back.",
        "drain": "Empty a host: the same as `maintenance on`.",
        "freeze": "Have nothing done by itself, cluster-wide.",
        "unfreeze": "Let the cluster act by itself again.",
        "policy": "Show or set what holds for all hosts and workloads.",
        "confirm-dead": "Say that a host is off, where nothing else could prove it.",
    },
    "Looking": {
        "status": "Say whether everything is protected, and what to do if not.",
        "what-if": "Tell what would be decided if hosts died now.",
        "ps": "List workloads and where they run.",
        "logs": "Show what a workload's modules wrote, wherever they ran.",
        "events": "List what happened, in order.",
        "why": "Tell a workload's last change as a chain of causes.",
    },
    "Trying": {
        "lab": "Build hosts on this one machine, and break them.",
        "bench": "Measure what protection costs here, and how fast it is.",
        "simulate": "Run the same decisions through simulated worlds and check them.",
        "test": "Run all of the project's checks and tests.",
    },
    "Other": {
        "agent": "Run this host's agent in the foreground.",
        "completion": "Print the completion script of a shell.",
    },
}

COMMANDS: Mapping[str, Entry] = {
    name: Entry(name, section, summary) for section, members in _SECTIONS.items() for name, summary in members.items()
}


class LazyGroup(click.Group):
    """A group whose members are those of the table, imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        return None if entry is None else load(entry)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not ctx.resilient_parsing:
            raise click.UsageError(_unknown(args[0]), ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list["CompletionItem"]:
        from click.shell_completion import CompletionItem

        names = [
            CompletionItem(entry.name, help=entry.summary)
            for entry in COMMANDS.values()
            if entry.name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, members in _SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl(list(members.items()), col_max=14)


def load(entry: Entry) -> click.Command:
    """Import a command's file and return its command, told apart from a wrong name.

    Raises Failed (id `command.missing`) when the installation lacks that file.
    """
    try:
        module = import_module(entry.module)
    except ModuleNotFoundError as error:
        if error.name != entry.module:
            raise
        raise Failed(
            f"The command `{entry.name}` is missing from this installation.",
            cause=f"there is no module {entry.module}",
            remedy="install Outlive again, or take a whole checkout",
            id="command.missing",
        ) from None
    command = module.command
    if not isinstance(command, click.Command):
        raise TypeError(f"{entry.module}.command is {command!r}, not a click command")
    command.name = entry.name
    command.short_help = entry.summary
    return command


def _unknown(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, COMMANDS, n=1)
    return f"There is no command `{name}`." + (f" Did you mean `{near[0]}`?" if near else "")
