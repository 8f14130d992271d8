"""Real hosts for tests of the whole agent, and machines that are none for tests of its rooms."""

from ..one_host import (
    one_host,
    other_host,
    patient_host,
    pytest_collection_modifyitems,
    pytest_runtest_teardown,
)
from .machine_scene import scene

__all__ = [
    "one_host",
    "other_host",
    "patient_host",
    "pytest_collection_modifyitems",
    "pytest_runtest_teardown",
    "scene",
]
