"""What the tests of the native programs start from. The programs are those that `native.find` finds, so that the
same tests run on a build with sanitizers where OUTLIVE_NATIVE_DIR names one."""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outlive.runtime.cgroup import find_or_mount

from .guarding import Client, GuardProcess, Namespace, clear

_numbers = itertools.count()


@pytest.fixture
def root() -> Iterator[Path]:
    """A cgroup for this test alone."""
    unified = find_or_mount().unified
    assert unified is not None
    folder = unified / f"outlive-test-{os.getpid()}-{next(_numbers)}"
    folder.mkdir()
    yield folder
    clear(folder)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    made = Namespace()
    yield made
    made.close()


@pytest.fixture
def start_guard(tmp_path: Path) -> Iterator[Callable[..., GuardProcess]]:
    """Start a guard on this test's socket, whether or not it comes up."""
    started: list[GuardProcess] = []

    def start(
        *options: str, namespace: Namespace | None = None, environment: dict[str, str] | None = None
    ) -> GuardProcess:
        started.append(GuardProcess(tmp_path, *options, namespace=namespace, environment=environment))
        return started[-1]

    yield start
    for guard in started:
        guard.close()


@pytest.fixture
def guard(start_guard: Callable[..., GuardProcess]) -> GuardProcess:
    made = start_guard()
    assert made.answer == f"OK {made.process.pid}"
    return made


@pytest.fixture
def client(guard: GuardProcess) -> Client:
    return guard.connect()
