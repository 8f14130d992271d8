"""Labs for tests: real namespaces, agents, guards and Redis, cleared away whatever the test does."""

import itertools
import os
from collections.abc import Generator, Iterator

import pytest

from outlive.cluster.timing import Timing
from outlive.lab.lab import Lab
from outlive.lab.sentinel import owned_lab

from .scene import Scene, on_stage
from .shared import SharedLab

_numbers = itertools.count()
_shared, _patient = SharedLab(), SharedLab(Timing(claim_ttl_s=40))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is a lab test, and takes longer than others."""
    for item in items:
        if "/tests/lab/" in str(item.path):
            item.add_marker(pytest.mark.lab)
            item.add_marker(pytest.mark.timeout(180))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> Generator[None]:
    """A lab that tests share ends with the last of those that follow each other."""
    yield
    for name, each in (("shared", _shared), ("patient", _patient)):
        if nextitem is None or name not in getattr(nextitem, "fixturenames", ()):
            each.end()


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Three hosts in one site, for one test alone."""
    name = f"t{os.getpid() % 10000}x{next(_numbers)}"
    with owned_lab(name, 3, 1, print) as made:
        yield made


@pytest.fixture
def shared(request: pytest.FixtureRequest) -> SharedLab:
    """Three hosts in one site, whole again after whatever an earlier test did to them."""
    _shared.begin(request.node.name, request.session.testsfailed)
    return _shared


@pytest.fixture
def patient(request: pytest.FixtureRequest) -> SharedLab:
    """The same, with claims that last so long that a new agent is in time, however loaded this machine is."""
    _patient.begin(request.node.name, request.session.testsfailed)
    return _patient


@pytest.fixture
def scene(shared: SharedLab) -> Iterator[Scene]:
    """A counted Redis in the lab; at the end nothing may be lost, and no two hosts may have acted at once."""
    with on_stage(shared.lab()) as played:
        yield played
