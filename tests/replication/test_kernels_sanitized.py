"""The kernels and the frame hold under sanitizers: all of their tests again, in a Python that loads such a build.

A library with sanitizers needs their runtime in the process before anything else, so the tests run in an
interpreter of their own. Leaks are not looked for: an interpreter never gives everything back.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "native"
SOURCES = (
    "pages_memory", "pages_scan", "pages_pack", "pages_apply", "crc32c",
    "framering", "framehold", "frameout", "framein",
)  # fmt: skip
WARNINGS = ("-std=c17", "-Wall", "-Wextra", "-Werror", "-g", "-O1", "-fPIC", "-shared", "-pthread")
SANITIZERS = {
    "memory": ("address,undefined", "libasan.so"),
    "threads": ("thread", "libtsan.so"),
}
# The sanitizer of threads takes it for a race when one thread connects a socket that another reads, which the kernel
# allows: the tests in which QEMU comes late are left out there.
TESTS = {
    "memory": ("test_kernels.py", "test_kernels_fuzz.py", "test_frames.py"),
    "threads": ("test_frames.py", "-k", "not qemu"),
}


@pytest.fixture
def short_folder() -> Iterator[str]:
    """A folder in which sockets of tests can have their paths."""
    with tempfile.TemporaryDirectory(prefix="ol-") as folder:
        yield folder


@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", ["memory", pytest.param("threads", marks=pytest.mark.soak)])
def test_kernels_hold_under_sanitizers(kind: str, tmp_path: Path, short_folder: str) -> None:
    sanitizer, runtime = SANITIZERS[kind]
    sources = [str(NATIVE / f"{name}.c") for name in SOURCES]
    flags = [*WARNINGS, f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
    subprocess.run(["cc", *flags, *sources, "-o", str(tmp_path / "liboutlive-pages.so"), "-llz4"], check=True)
    preload = subprocess.run(
        ["cc", f"-print-file-name={runtime}"], check=True, capture_output=True, text=True
    ).stdout.strip()
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"),
         *TESTS[kind]],
        cwd=Path(__file__).parent,
        env={
            **os.environ,
            "LD_PRELOAD": preload,
            "ASAN_OPTIONS": "detect_leaks=0",
            "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
            "TSAN_OPTIONS": f"halt_on_error=1:exitcode=66:log_path={tmp_path}/race",
            "PYTHONMALLOC": "malloc",
            "OUTLIVE_NATIVE_DIR": str(tmp_path),
            # It would shut the folder of folders for other users, of which tests beside this one are some.
            "PYTEST_DEBUG_TEMPROOT": short_folder,
        },
        capture_output=True,
        text=True,
        timeout=380,
    )  # fmt: skip
    races = "".join(path.read_text() for path in tmp_path.glob("race.*"))
    assert ended.returncode == 0, (ended.stdout + ended.stderr + races)[-6000:]
