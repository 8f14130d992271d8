"""A console is a terminal lent to the guest: every key goes there, and it is given back as it was on every way out."""

import os
import pty
import queue
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from outlive.cli import console, main
from outlive.native import outlive_command

from .pretended_agent import Answer, Asked, Pieces, pretended, problem

WITHIN_S = 60.0


class Guest:
    """A machine with a console that says `login: ` at first, and what a test has it say; typed: what it got."""

    def __init__(self) -> None:
        self.says: queue.Queue[bytes | None] = queue.Queue()
        self.typed = b""
        self.connected = 0
        self.is_there = True

    def __call__(self, asked: Asked) -> Answer:
        if not self.is_there:
            return problem(409, "console.unreachable", "db does not run.")
        if asked.method == "POST" and asked.path == f"/v1/workloads/db/console/s{self.connected}":
            self.typed += asked.body
            return 200, {"taken": len(asked.body)}
        if asked.method == "GET" and asked.path.startswith("/v1/workloads/db/console?replay="):
            self.connected += 1
            headers = {console.SESSION_HEADER: f"s{self.connected}", console.HOST_HEADER: "ab"[self.connected - 1]}
            return 200, Pieces(self._said(), headers)
        return problem(404, "not-found", "There is no such console.")

    def _said(self) -> Iterator[bytes]:
        yield b"login: "
        while (said := self.says.get()) is not None:
            yield said


class Pty:
    """Our command on a terminal of its own."""

    def __init__(self, *words: str) -> None:
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.seen = b""
        self.process = subprocess.Popen(
            outlive_command(*words), stdin=self.slave, stdout=self.slave, stderr=self.slave, start_new_session=True
        )

    def until(self, text: bytes) -> None:
        deadline = time.monotonic() + WITHIN_S
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{text!r} did not come: {self.seen!r}"
            self.seen += os.read(self.master, 4096)

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    @property
    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON

    def ended(self) -> int:
        code = self.process.wait(WITHIN_S)
        while select.select([self.master], [], [], 0)[0]:
            self.seen += os.read(self.master, 4096)
        assert termios.tcgetattr(self.slave) == self.before, "the terminal is as it was"
        assert b"Traceback" not in self.seen, self.seen
        return code


@contextmanager
def on_a_terminal(guest: Guest, *more: str) -> Iterator[Pty]:
    with pretended(guest) as agent:
        terminal = Pty("console", "db", "--socket", agent.socket, *more)
        try:
            yield terminal
        finally:
            guest.says.put(None)
            terminal.process.kill()
            terminal.process.wait()
            os.close(terminal.master)
            os.close(terminal.slave)


def until_typed(guest: Guest, keys: bytes) -> None:
    deadline = time.monotonic() + WITHIN_S
    while guest.typed != keys:
        assert time.monotonic() < deadline, guest.typed
        time.sleep(0.01)


def test_every_key_goes_to_the_guest_until_the_one_that_detaches() -> None:
    guest = Guest()
    with on_a_terminal(guest) as terminal:
        terminal.until(b"Connected to the console of db on a. Detach with Ctrl-].")
        terminal.until(b"login: ")
        assert terminal.is_raw
        terminal.type(b"root\r\x03\x1a\x04\x1c")
        until_typed(guest, b"root\r\x03\x1a\x04\x1c")
        guest.says.put(b"\x1b[1mhello\x1b[0m")
        terminal.until(b"\x1b[1mhello\x1b[0m")
        terminal.type(b"last\x1dnot this")
        assert terminal.ended() == 0
        assert b"Detached from db." in terminal.seen
    assert guest.typed == b"root\r\x03\x1a\x04\x1clast"


def test_another_key_may_detach() -> None:
    guest = Guest()
    with on_a_terminal(guest, "--detach-key", "^a") as terminal:
        terminal.until(b"Detach with Ctrl-A.")
        terminal.until(b"login: ")
        terminal.type(b"\x1d\x01")
        assert terminal.ended() == 0
    assert guest.typed == b"\x1d"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_restores_the_terminal(number: signal.Signals) -> None:
    with on_a_terminal(Guest()) as terminal:
        terminal.until(b"login: ")
        terminal.process.send_signal(number)
        assert terminal.ended() == 128 + number


def test_a_terminal_that_goes_away_ends_it() -> None:
    guest = Guest()
    with pretended(guest) as agent:
        master, slave = pty.openpty()
        process = subprocess.Popen(
            outlive_command("console", "db", "--socket", agent.socket), stdin=slave, stdout=slave, stderr=slave
        )
        try:
            os.close(slave)
            assert os.read(master, 1)
            os.close(master)
            assert process.wait(WITHIN_S) is not None
        finally:
            guest.says.put(None)
            process.kill()
            process.wait()


def test_the_console_is_taken_up_again_where_the_machine_goes_on() -> None:
    guest = Guest()
    with on_a_terminal(guest) as terminal:
        terminal.until(b"login: ")
        guest.is_there = False
        guest.says.put(None)
        terminal.until(b"The console of db is gone; waiting for it to come back.")
        guest.is_there = True
        terminal.until(b"Connected again to the console of db on b.")
        terminal.type(b"x")
        until_typed(guest, b"x")
        terminal.type(b"\x1d")
        assert terminal.ended() == 0


def test_one_may_detach_while_the_console_is_away() -> None:
    guest = Guest()
    with on_a_terminal(guest) as terminal:
        terminal.until(b"login: ")
        guest.is_there = False
        guest.says.put(None)
        terminal.until(b"is gone")
        terminal.type(b"\x1d")
        assert terminal.ended() == 0


def test_a_console_that_cannot_be_had_is_told_and_the_terminal_restored() -> None:
    guest = Guest()
    guest.is_there = False
    with on_a_terminal(guest) as terminal:
        assert terminal.ended() == 1
        assert b"db does not run." in terminal.seen


def test_without_a_terminal_bytes_go_in_and_out_as_they_are() -> None:
    guest = Guest()
    with pretended(guest) as agent:
        process = subprocess.Popen(
            outlive_command("console", "db", "--socket", agent.socket),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin
        assert process.stdout
        assert process.stderr
        try:
            process.stdin.write(b"a\x1d\x00\xff")
            process.stdin.close()
            until_typed(guest, b"a\x1d\x00\xff")
            guest.says.put(b"\x00\xfeb")
            assert process.stdout.read(10) == b"login: \x00\xfeb"
            process.send_signal(signal.SIGINT)
            assert process.wait(WITHIN_S) == 130
            assert b"Connected to the console of db on a.\n" in process.stderr.read()
        finally:
            guest.says.put(None)
            process.kill()
            process.wait()
            process.stdout.close()
            process.stderr.close()


def test_a_console_that_does_not_come_back_is_given_up(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    guest = Guest()
    guest.says.put(None)
    monkeypatch.setattr(console, "AWAY_S", 0.5)

    def once(asked: Asked) -> Answer:
        answer = guest(asked)
        guest.is_there = False
        return answer

    with pretended(once) as agent:
        code = main.run(["console", "db", "--socket", agent.socket])
    said = capfd.readouterr()
    assert (code, "did not come back within 0.5 s" in said.err) == (1, True), said


@pytest.mark.parametrize("key", ["x", "^", "^é", "ctrl-a"])
def test_a_key_that_is_none_is_usage(capsys: pytest.CaptureFixture[str], key: str) -> None:
    assert main.run(["console", "db", "--detach-key", key, "--socket", "/nonexistent"]) == 2
    assert "is no key" in capsys.readouterr().err
