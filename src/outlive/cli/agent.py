"""`outlive agent`: this host's agent, in the foreground.

Here only words are turned into a configuration and a way to run it; what an agent does is in `outlive.agent`. With
`--keep` this process becomes the keeper, before anything of the agent is loaded.
"""

import sys
from pathlib import Path

import click


@click.command()
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    default=Path("/etc/outlive/agent.toml"),
    show_default=True,
    help="The agent file.",
)
@click.option("--keep", is_flag=True, help="Start it again when it crashes; for hosts without systemd.")
@click.option("--stop-workloads", is_flag=True, help="Stop its workloads in order when it is told to end.")
def command(file: Path, keep: bool, stop_workloads: bool) -> int:
    """Run this host's agent in the foreground.

    SIGTERM or Ctrl-C ends the agent alone: workloads go on, and the next agent adopts them. SIGUSR1 stops them
    in order first, as for the host's shutdown.
    """
    if keep:
        from outlive.agent.keeper import keep as keep_running
        from outlive.native import outlive_command

        words = ["agent", "--config", str(file)]
        return keep_running([*outlive_command(*words, *(["--stop-workloads"] if stop_workloads else []))])
    from outlive.agent.daemon import run
    from outlive.config.agent_file import read_agent

    config = read_agent(file)
    run(config, stop_workloads=stop_workloads)
    sys.stderr.flush()
    return 0
