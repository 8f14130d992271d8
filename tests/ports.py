"""Ports on loopback for programs that have to be told one: nobody else takes them while a block lasts.

A port that was free a moment ago may not be any more: other tests run beside this one, and every connection that a
program makes takes a port for its own end. So these lie below those that the kernel gives away, and each is claimed by
the name of a socket, which all tests respect and which ends with its process.
"""

import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

HOST = "127.0.0.1"
FIRST, LAST = 20_000, 32_000


@contextmanager
def free_ports(count: int) -> Iterator[list[int]]:
    """So many ports, all different."""
    with ExitStack() as held:
        found: list[int] = []
        for port in random.Random().sample(range(FIRST, LAST), LAST - FIRST):
            if _claimed(port, held) and _is_free(port):
                found.append(port)
            if len(found) == count:
                break
        assert len(found) == count, "no ports are free"
        yield found


@contextmanager
def free_port() -> Iterator[int]:
    """One of them."""
    with free_ports(1) as [port]:
        yield port


def _claimed(port: int, held: ExitStack) -> bool:
    claim = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    try:
        claim.bind(f"\0outlive-test-port-{port}")
    except OSError:
        return False
    return True


def _is_free(port: int) -> bool:
    try:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET, kind) as trial:
                trial.bind((HOST, port))
    except OSError:
        return False
    return True
