"""Starting this host's agent as a process of its own, and ending it in order: for commands, not for the agent itself.

An agent that is asked to end in order (SIGUSR1) first stops its workloads; one that is just asked to end (SIGTERM)
leaves them to the next. Its keeper ends with it. The guard ends last, and only when nothing is in force any more.
Whose processes these are is asked of the kernel, never guessed.
"""

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import time
from pathlib import Path

from outlive import native
from outlive.config.agent_file import AgentConfig
from outlive.errors import Failed
from outlive.fence.guard import Guard, GuardLost, GuardRefused, Listener

from . import presence

CONSOLE = "console.log"
LAST_WORDS_BYTES = 2000


class AgentNotStarted(Failed):
    """The agent ended soon after it was started."""

    id = "agent.not-started"


class AgentNotEnded(Failed):
    """The agent did not end in the time that it was given."""

    id = "agent.not-ended"


def start(config_file: Path, config: AgentConfig) -> "subprocess.Popen[bytes]":
    """Start the agent under its keeper, in a session of its own; what it says goes to its data folder."""
    config.data_folder.mkdir(parents=True, exist_ok=True, mode=0o711)
    with (config.data_folder / CONSOLE).open("ab") as console:
        return subprocess.Popen(
            native.outlive_command("agent", "--keep", "--config", str(config_file)),
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
            cwd="/",
        )


def check_alive(process: "subprocess.Popen[bytes]", config: AgentConfig) -> None:
    """Raise AgentNotStarted, with the agent's last words, if its keeper has ended."""
    if process.poll() is not None:
        raise AgentNotStarted(
            f"The agent of {config.host} ended soon after its start.",
            cause=_last_words(config.data_folder / CONSOLE),
            remedy="see `outlive doctor`",
        )


def _last_words(console: Path) -> str:
    try:
        with console.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - LAST_WORDS_BYTES))
            return file.read().decode(errors="replace").strip()
    except OSError:
        return ""


def end(pid: int, timeout_s: float, *, workloads: bool = True) -> None:
    """Ask an agent to end, and wait until it has. Raises AgentNotEnded.

    workloads: it stops them first; otherwise they go on, and the guard ends them unless another agent is back in time.
    """
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            keeper = presence.kept_by(pid)
            signal.pidfd_send_signal(pidfd, signal.SIGUSR1 if workloads else signal.SIGTERM)
            if not select.select([pidfd], [], [], timeout_s)[0]:
                raise AgentNotEnded(
                    f"The agent (process {pid}) has not ended after {timeout_s:g} s.",
                    cause="a workload may take long to stop",
                    remedy="it goes on stopping; see `outlive ps`, and say `outlive down` again",
                )
        finally:
            os.close(pidfd)
        if keeper is not None:
            _wait_for(keeper, timeout_s)


def _wait_for(pid: int, timeout_s: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            select.select([pidfd], [], [], timeout_s)
        finally:
            os.close(pidfd)


def end_guard(run_folder: Path, timeout_s: float) -> bool:
    """End the guard of a host whose agent has ended; False when there is none. Raises GuardRefused after the time."""
    return asyncio.run(_end_guard(run_folder / presence.GUARD_SOCKET, timeout_s))


async def _end_guard(path: Path, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while presence.listener(path) is not None:
        guard = Guard(path, Path(os.devnull), Listener(_ignore, _ignore, lambda: None))
        try:
            await guard.start()
            await guard.quit()
            return True
        except GuardLost:
            return True
        except GuardRefused:
            # What is still in force ends at the deadline, which nobody puts off any more.
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)
        finally:
            guard.close()
    return False


def _ignore(news: object) -> None:
    pass
