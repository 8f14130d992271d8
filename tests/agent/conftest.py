"""Real hosts for tests of the whole agent."""

from ..one_host import one_host, other_host, pytest_collection_modifyitems

__all__ = ["one_host", "other_host", "pytest_collection_modifyitems"]
