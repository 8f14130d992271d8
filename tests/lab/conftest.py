"""Labs for tests: real namespaces, agents, guards and Redis, cleared away whatever the test does."""

import itertools
import os
from collections.abc import Iterator

import pytest

from outlive.lab.lab import Lab
from outlive.lab.sentinel import owned_lab

from .scene import Scene, on_stage

_numbers = itertools.count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is a lab test, and takes longer than others."""
    for item in items:
        if "/tests/lab/" in str(item.path):
            item.add_marker(pytest.mark.lab)
            item.add_marker(pytest.mark.timeout(180))


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Three hosts in one site."""
    name = f"t{os.getpid() % 10000}x{next(_numbers)}"
    with owned_lab(name, 3, 1, print) as made:
        yield made


@pytest.fixture
def scene(lab: Lab) -> Iterator[Scene]:
    """A counted Redis in the lab; at the end nothing may be lost, and no two hosts may have acted at once."""
    with on_stage(lab) as played:
        yield played
