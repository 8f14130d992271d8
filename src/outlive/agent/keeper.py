"""The keeper: a parent so small that nothing in it breaks, where there is no systemd to restart an agent.

It starts the agent, starts it again at once when it dies, and waits a little longer each time it dies young.
Signals to end go on to the agent, whose way of ending is then the keeper's. It imports nothing of the
project, touches no workload, and can be killed without harm: the agent goes on alone.
"""

import os
import signal
import sys
import time

LIVED_S = 10.0
PAUSES_S = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)
ENDS_KEEPING = frozenset({0, 2, 3})
"""Done, wrong usage, refused for safety: starting it again would end the same way."""

_ASKS_TO_END = frozenset({signal.SIGTERM, signal.SIGINT})
_FORWARDED = _ASKS_TO_END | {signal.SIGUSR1}
_HELD = _FORWARDED | {signal.SIGCHLD, signal.SIGHUP}


def pause_s(young_deaths: int) -> float:
    """How long to wait before the next start after so many deaths in a row of agents that lived briefly."""
    return PAUSES_S[min(max(young_deaths - 1, 0), len(PAUSES_S) - 1)]


def keep(command: list[str]) -> int:
    """Keep `command` (its first word a path) running until it ends as wanted: its exit code."""
    # Blocked and waited for, never handled: so no signal can come between a start and its being known.
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    young_deaths = 0
    while True:
        began_at = time.monotonic()
        child = os.posix_spawn(command[0], command, os.environ, setsigmask=())
        code, asked = _accompanied(child)
        if asked or code in ENDS_KEEPING:
            return code if code >= 0 else 128 - code
        young_deaths = young_deaths + 1 if time.monotonic() - began_at < LIVED_S else 0
        wait_s = pause_s(young_deaths)
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        print(f"keeper: the agent ended ({how}); starting it again in {wait_s:g} s", file=sys.stderr, flush=True)
        ending = signal.sigtimedwait(_ASKS_TO_END, wait_s)
        if ending is not None:
            return 128 + ending.si_signo


def _accompanied(child: int) -> tuple[int, bool]:
    """Pass signals on until the child ends: its exit code (negative: a signal), whether it was asked."""
    asked = False
    while True:
        number = signal.sigwaitinfo(_FORWARDED | {signal.SIGCHLD}).si_signo
        if number == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status), asked
        else:
            # Not reaped yet, so its number cannot belong to anybody else.
            os.kill(child, number)
            asked = asked or number in _ASKS_TO_END
