"""`outlive console NAME`: use a machine's serial console, wherever it runs.

What the console writes comes as one streamed answer, and each thing that is typed goes in a request of its own, in
order (why so: docs/decisions/console.md). When the machine moves or its host dies, the console is taken up again where
the machine goes on.
"""

import os
import select
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from outlive.errors import ClusterUnreachable, Failed

from .connect import WORKLOAD, cluster_options
from .terminal import Terminal

if TYPE_CHECKING:
    from outlive.client import Client
    from outlive.client.connection import Streamed

SESSION_HEADER = "Outlive-Console-Session"
HOST_HEADER = "Outlive-Host"
STDIN, STDOUT = 0, 1
AWAY_S = 60.0
RETRY_S = 0.2
SHOWN_WITHIN_S = 1.0
"""How long whoever reads our output may hold us up at the end."""
REPLAY_BYTES = 4096
MOST_TYPED_BYTES = 16 * 1024


class ConsoleLost(Failed):
    """The console went away, and did not come back."""

    id = "console.lost"


def _key(text: str) -> bytes:
    """The byte of a key such as ^] or ^a; b'' for none."""
    if text == "none":
        return b""
    if len(text) == 2 and text[0] == "^" and "@" <= text[1].upper() <= "_":
        return bytes([ord(text[1].upper()) & 0x1F])
    raise click.UsageError(f"{text!r} is no key; write it as ^] for Ctrl-], or none.")


@click.command()
@click.argument("name", type=WORKLOAD)
@click.option("--detach-key", default="^]", show_default=True, metavar="KEY", help="^a is Ctrl-A; none: there is none.")
@click.option(
    "--replay", type=click.IntRange(0, 1 << 20), default=REPLAY_BYTES, show_default=True, metavar="BYTES",
    help="Show the last that it wrote.",
)  # fmt: skip
@cluster_options
def command(client: "Client", name: str, detach_key: str, replay: int) -> None:
    """Use a machine's serial console, wherever it runs. Ctrl-] detaches, and the machine goes on.

    All other keys go to the guest, Ctrl-C too. When the machine goes on elsewhere, so does the console. Several may use
    it at once. Without a terminal, stdin is typed and what the console writes goes to stdout.
    """
    key = _key(detach_key)
    with Terminal(STDIN, STDOUT) as terminal:
        _use(client, name, key if terminal.is_real else b"", replay, terminal)
    if terminal.is_real:
        sys.stderr.write(f"Detached from {name}.\n")


def _use(client: "Client", name: str, key: bytes, replay: int, terminal: Terminal) -> None:
    """Use the console until the user detaches. Raises ConsoleLost, or what the agent says at the first try."""
    from outlive.client.connection import Answered

    away_since: float | None = None
    while True:
        try:
            with client.stream(f"/v1/workloads/{name}/console?replay={replay}") as streamed:
                where = streamed.header(HOST_HEADER)
                again = "again " if away_since is not None else ""
                how = f" Detach with Ctrl-{chr(key[0] | 0x40)}." if key else ""
                terminal.note(f"Connected {again}to the console of {name} on {where}.{how}")
                away_since = None
                if _Talk(client, name, key, terminal, streamed).until_detached():
                    return
            terminal.note(f"The console of {name} is gone; waiting for it to come back.")
        except (Answered, ClusterUnreachable) as error:
            if away_since is None:
                raise
            if time.monotonic() - away_since > AWAY_S:
                raise ConsoleLost(
                    f"The console of {name} did not come back within {AWAY_S:g} s.",
                    cause=error.sentence,
                    remedy=f"see `outlive why {name}`",
                ) from error
        replay, away_since = 0, time.monotonic() if away_since is None else away_since
        if terminal.waited_for_key(key, RETRY_S):
            return


class _Talk:
    """One connection: what comes is shown by a thread of its own, what is typed is sent from here."""

    def __init__(self, client: "Client", name: str, key: bytes, terminal: Terminal, streamed: "Streamed") -> None:
        self._client, self._key, self._terminal, self._streamed = client, key, terminal, streamed
        self._address = f"/v1/workloads/{name}/console/{streamed.header(SESSION_HEADER)}"
        self._over, self._tell = os.pipe()
        os.set_blocking(self._tell, False)
        self._showing = threading.Thread(target=self._show, daemon=True)

    def until_detached(self) -> bool:
        """Whether the user detached; False when the connection ended. Returns when one of both has happened."""
        # A signal that comes just before we wait would else be noticed only with the next key.
        before = signal.set_wakeup_fd(self._tell, warn_on_full_buffer=False)
        try:
            self._showing.start()
            return self._type()
        finally:
            signal.set_wakeup_fd(before)
            self._streamed.abandon()
            if self._showing.ident is not None:
                self._showing.join(SHOWN_WITHIN_S)
            if not self._showing.is_alive():
                os.close(self._over)
                os.close(self._tell)

    def _show(self) -> None:
        try:
            while piece := self._streamed.read():
                self._terminal.show(piece)
        except (ClusterUnreachable, OSError):
            pass
        finally:
            with suppress(BlockingIOError):
                os.write(self._tell, b"x")

    def _type(self) -> bool:
        while True:
            waiting = [self._over, *self._terminal.typed_from()]
            ready, _, _ = select.select(waiting, [], [])
            if self._over in ready:
                return False
            typed = self._terminal.typed(MOST_TYPED_BYTES)
            before, found, _ = typed.partition(self._key) if self._key else (typed, b"", b"")
            if before and not self._send(before):
                return False
            if found or (not typed and self._terminal.is_real):
                return True

    def _send(self, typed: bytes) -> bool:
        from outlive.client.connection import Answered

        try:
            self._client.post_bytes(self._address, typed)
        except (Answered, ClusterUnreachable):
            return False
        return True
