"""How the agent's process is asked to end: by signals, and with or without its workloads.

What ends, and in which order, is `agent`'s to see to.
"""

import asyncio
import signal


class AgentEnded(Exception):
    """The agent was asked to end, and did."""


class Ending:
    """How the process was asked to end. workloads_too: in order, with all that it holds; at_once: asked again."""

    def __init__(self, stop_workloads: bool) -> None:
        self.asked = asyncio.Event()
        self.workloads_too = stop_workloads
        self.at_once = False

    def listen(self) -> None:
        """Hear the signals: TERM and INT end the agent, USR1 stops its workloads before."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(signal.SIGUSR1, self._end_in_order)
        # A terminal that goes away takes no agent with it.
        loop.add_signal_handler(signal.SIGHUP, lambda: None)

    def _end(self) -> None:
        self.at_once = self.asked.is_set()
        self.asked.set()

    def _end_in_order(self) -> None:
        self.workloads_too = True
        self.asked.set()
