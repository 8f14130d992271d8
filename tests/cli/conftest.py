"""The real host that tests of this room share."""

from ..one_host import (
    one_host,
    other_host,
    patient_host,
    pytest_collection_modifyitems,
    pytest_runtest_teardown,
)

__all__ = ["one_host", "other_host", "patient_host", "pytest_collection_modifyitems", "pytest_runtest_teardown"]
