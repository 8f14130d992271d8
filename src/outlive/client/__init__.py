"""Talking to an agent's API: what the command line, the lab and the demo use.

Nothing of the agent is imported here, so that a command starts quickly; only what the API answers is relied on.
"""

from .connection import Client, find_socket

__all__ = ["Client", "find_socket"]
