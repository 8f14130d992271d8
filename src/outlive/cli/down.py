"""`outlive down`: end this machine's agent in order, with its workloads and its guard; nothing is deleted."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from outlive.errors import OutliveError

from .connect import say
from .output import json_option, print_json
from .rm import ask
from .up import need_root

if TYPE_CHECKING:
    from outlive.config.agent_file import AgentConfig

GUARD_S = 10.0


@click.command()
@click.option("--yes", "-y", is_flag=True, help="Do not ask when workloads run here.")
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Of the host that was made with `up --folder`.",
)  # fmt: skip
@click.option("--wait", "wait_s", type=float, default=90.0, show_default=True, help="Seconds that workloads have.")
@json_option
def command(yes: bool, folder: Path | None, wait_s: float, as_json: bool) -> None:
    """End this machine's agent in order: its workloads stop, then the agent and its guard. Nothing is deleted.

    Where there are other hosts, they take over what they can. `outlive up` starts it again.
    """
    from outlive.agent import outset, presence
    from outlive.agent.first_host import Places
    from outlive.config.agent_file import read_agent

    need_root("end this machine's agent")
    places = Places.below(folder) if folder else Places.installed()
    if not places.config.exists():
        say(f"There is no {places.config}: nothing to end.")
        stopped: list[str] = []
        pid, guarded = None, False
    else:
        config = read_agent(places.config)
        pid = presence.agent_pid(config.run_folder)
        stopped = running_here(config) if pid is not None else []
        if stopped and not yes:
            ask(f"{', '.join(stopped)} run on {config.host}, and will be stopped. Go on?")
        if pid is not None:
            say(f"ending the agent of {config.host}" + (f" and {', '.join(stopped)}" if stopped else ""))
            outset.end(pid, wait_s)
        guarded = outset.end_guard(config.run_folder, GUARD_S)
        say(f"{config.host} is down." if pid is not None or guarded else f"{config.host} was not running.")
        say("`outlive up` starts it again.")
    if as_json:
        print_json({"ended": pid is not None, "stopped": stopped, "guard_ended": guarded})


def running_here(config: "AgentConfig") -> list[str]:
    """The workloads that are on this host, as its agent sees it; none when it does not say."""
    from outlive.agent import presence
    from outlive.client import Client

    try:
        host = Client(str(config.run_folder / presence.API_SOCKET)).get(f"/v1/hosts/{config.host}")
    except OutliveError:
        return []
    return [str(name) for name in host["workloads"]]
