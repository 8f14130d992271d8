"""The libraries that Python loads hold under sanitizers: their tests again, in a Python that loads such a build.

Hostile input is left to the fuzz targets in C (`fuzz/test_native.py`), which need no interpreter and get much further.
"""

from pathlib import Path

import pytest

from .sanitized import MEMORY, THREADS, libraries, run_again

# Each bit of a tag is a test of its own, which here would all show the same.
MEMORY_TESTS = (
    "wire/test_senders.py", "replication/test_kernels.py", "replication/test_frames.py", "-k", "not bit",
)  # fmt: skip
# The sanitizer of threads takes it for a race when one thread connects a socket that another reads, which the kernel
# allows: the tests in which QEMU comes late are left out there.
THREAD_TESTS = ("replication/test_frames.py", "-k", "not qemu")


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("sanitizers", "selection"), [(MEMORY, MEMORY_TESTS), pytest.param(THREADS, THREAD_TESTS, marks=pytest.mark.soak)]
)
def test_the_libraries_hold_under_sanitizers(sanitizers: str, selection: tuple[str, ...], tmp_path: Path) -> None:
    libraries(tmp_path, sanitizers)
    problem = run_again(tmp_path, *selection, sanitizers=sanitizers)
    assert not problem, problem
