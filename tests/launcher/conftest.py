"""Copies of this checkout to set up, move, break and build, so that the real one stays as it is."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

REAL = Path(__file__).resolve().parents[2]
PARTS = ("outlive", "pyproject.toml", "uv.lock", "meson.build", "README.md", "LICENSE", "packaging", "native", "src")
UV = REAL / ".setup" / "tools" / "bin" / "uv"


@dataclass
class Checkout:
    """One copy, and how to run its launcher."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def launcher(self) -> Path:
        return self.root / "outlive"

    def start(self, *words: str, cwd: Path | None = None, program: Path | None = None) -> subprocess.Popen[str]:
        """Start the launcher in a session of its own, so that a test can kill all of it."""
        return subprocess.Popen(
            [str(program or self.launcher), *words],
            cwd=cwd or "/",
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str, cwd: Path | None = None, program: Path | None = None) -> "Ended":
        """Run the launcher to its end."""
        with self.start(*words, cwd=cwd, program=program) as process:
            stdout, stderr = process.communicate(timeout=100)
            return Ended(process.returncode, stdout, stderr)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a launcher ended."""

    code: int
    stdout: str
    stderr: str


def copy_checkout(destination: Path, parts: Sequence[str] = PARTS) -> Path:
    """Copy what a launcher or a build needs, without what was built before."""
    destination.mkdir(parents=True)
    for part in parts:
        source = REAL / part
        if source.is_dir():
            shutil.copytree(source, destination / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, destination / part)
    return destination


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A copy that was set up once for a whole file, with the uv that set up the real one."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OUTLIVE_", "UV_"))}
    # What is built is looked at and not timed, so the compiler need not try hard.
    environment["CFLAGS"] = "-O0"
    if UV.exists():
        environment["OUTLIVE_UV"] = str(UV)
    made = Checkout(copy_checkout(tmp_path_factory.mktemp("launcher") / "checkout"), environment)
    ended = made.run("--version")
    assert ended.code == 0, ended.stderr
    return made
