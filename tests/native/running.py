"""A real runner with a module of the test's choice, and what it leaves behind."""

import fcntl
import json
import os
import re
import struct
import subprocess
import termios
from pathlib import Path

from outlive import native

LINE = re.compile(rb"(\d{13}) ([oe]) (.*)", re.DOTALL)


class RunnerProcess:
    """One outlive-runner. Its state folder and log are below `folder`, its cgroups below `root`."""

    def __init__(self, folder: Path, root: Path, *command: str, options: tuple[str, ...] = (), log: Path | None = None):
        self.state = folder / "state"
        self.state.mkdir(exist_ok=True)
        self.log = log or folder / "module.log"
        self.cgroup = root / "module"
        self.runner_cgroup = root / "_runner"
        for cgroup in (self.cgroup, self.runner_cgroup):
            cgroup.mkdir(exist_ok=True)
        reading, writing = os.pipe()
        words = [
            str(native.find("outlive-runner")),
            f"--state-dir={self.state}",
            f"--log={self.log}",
            f"--cgroup={self.cgroup}",
            f"--runner-cgroup={self.runner_cgroup}",
            f"--ready-fd={writing}",
            *options,
            "--",
            *command,
        ]
        with open(reading, "rb") as answer:
            self.process = subprocess.Popen(words, pass_fds=(writing,), stdin=subprocess.DEVNULL)
            os.close(writing)
            self.answer = answer.readline().decode().rstrip("\n")

    @property
    def child(self) -> int:
        word, pid = self.answer.split(" ")
        assert word == "OK"
        return int(pid)

    def wait(self) -> int:
        return self.process.wait(60)

    def state_record(self) -> dict[str, object]:
        return dict(json.loads((self.state / "state.json").read_text()))

    def exit_record(self) -> dict[str, object]:
        return dict(json.loads((self.state / "exit.json").read_text()))

    def lines(self, path: Path | None = None) -> list[tuple[str, bytes]]:
        """Stream and text of each line of a log; every line is whole."""
        text = (path or self.log).read_bytes()
        assert text == b"" or text.endswith(b"\n")
        found = [LINE.fullmatch(line) for line in text.split(b"\n")[:-1]]
        assert all(found), text[:500]
        return [(match[2].decode(), match[3]) for match in found if match]

    def is_idle(self) -> bool:
        """Whether it has dealt with all that the module has written until now."""
        with open(f"/proc/{self.child}/fd/1", "rb", buffering=0) as unread:
            left = struct.unpack("i", fcntl.ioctl(unread, termios.FIONREAD, bytes(4)))[0]
        state = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return left == 0 and state == "S"

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
