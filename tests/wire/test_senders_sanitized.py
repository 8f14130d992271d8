"""The library that deals with repetitions under sanitizers: its tests again, in a Python that loads such a build."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [str(ROOT / "native" / name) for name in ("heartbeats.c", "blake2s.c")]
FLAGS = (
    "-std=c17", "-Wall", "-Wextra", "-Werror", "-g", "-O1", "-fPIC", "-shared",
    "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer",
)  # fmt: skip


@pytest.mark.timeout(200)
def test_receiving_holds_under_sanitizers(tmp_path: Path) -> None:
    subprocess.run(["cc", *FLAGS, *SOURCES, "-o", str(tmp_path / "liboutlive-heartbeats.so")], check=True)
    found = subprocess.run(["cc", "-print-file-name=libasan.so"], check=True, capture_output=True, text=True)
    with tempfile.TemporaryDirectory(prefix="ol-") as folder:
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"),
             "test_senders.py", "-k", "not bit"],
            cwd=Path(__file__).parent,
            env={
                **os.environ,
                "LD_PRELOAD": found.stdout.strip(),
                "ASAN_OPTIONS": "detect_leaks=0",
                "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
                "PYTHONMALLOC": "malloc",
                "OUTLIVE_NATIVE_DIR": str(tmp_path),
                # It would shut the folder of folders for other users, of which tests beside this one are some.
                "PYTEST_DEBUG_TEMPROOT": folder,
            },
            capture_output=True,
            text=True,
            timeout=180,
        )  # fmt: skip
    assert ended.returncode == 0, (ended.stdout + ended.stderr)[-6000:]
