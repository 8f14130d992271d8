"""C under sanitizers: how it is built so, and a Python in which such libraries can be loaded.

A library with sanitizers needs their runtime in the process before anything else, so that tests of it run in an
interpreter of their own. Leaks are not looked for: an interpreter never gives everything back.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
NATIVE = ROOT / "native"
MEMORY, THREADS = "address,undefined", "thread"
OPTIONS = {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"}
_RUNTIMES = {MEMORY: "libasan.so", THREADS: "libtsan.so"}
_FLAGS = (
    "-std=c17", "-Wall", "-Wextra", "-Werror", "-g", "-O1", "-pthread",
    "-fno-sanitize-recover=all", "-fno-omit-frame-pointer",
)  # fmt: skip
PAGES = (
    "pages_memory", "pages_scan", "pages_pack", "pages_apply", "crc32c",
    "framering", "framehold", "frameout", "framein",
)  # fmt: skip
HEARTBEATS = ("heartbeats", "blake2s")


def build(into: Path, sources: Sequence[Path], *words: str, sanitizers: str = MEMORY, compiler: str = "cc") -> Path:
    """Build a program, or with `-fPIC -shared` a library."""
    flags = (*_FLAGS, f"-fsanitize={sanitizers}", f"-I{NATIVE}")
    subprocess.run([compiler, *flags, *sources, "-o", into, *words], check=True, timeout=300)
    return into


def native(names: Sequence[str]) -> list[Path]:
    """Our C files of these names."""
    return [NATIVE / f"{name}.c" for name in names]


def libraries(folder: Path, sanitizers: str = MEMORY) -> None:
    """Build into a folder the libraries that Python loads."""
    shared = ("-fPIC", "-shared")
    build(folder / "liboutlive-pages.so", native(PAGES), *shared, "-llz4", sanitizers=sanitizers)
    build(folder / "liboutlive-heartbeats.so", native(HEARTBEATS), *shared, sanitizers=sanitizers)


def run_again(folder: Path, *selection: str, sanitizers: str = MEMORY) -> str:
    """Run tests again with the libraries of this folder; what went wrong, '' for nothing.

    selection: as pytest takes it, from the folder `tests` on.
    """
    found = subprocess.run(
        ["cc", f"-print-file-name={_RUNTIMES[sanitizers]}"], check=True, capture_output=True, text=True
    )
    # Its folders have short names, since sockets have their paths there; and they are not below the folder of folders
    # that a pytest which is started shuts for other users, of which tests beside this one are some.
    with tempfile.TemporaryDirectory(prefix="ol-") as short:
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"),
             *selection],
            cwd=ROOT / "tests",
            env={
                **os.environ,
                **OPTIONS,
                "LD_PRELOAD": found.stdout.strip(),
                "TSAN_OPTIONS": f"halt_on_error=1:exitcode=66:log_path={folder}/race",
                "OUTLIVE_NATIVE_DIR": str(folder),
                "PYTEST_DEBUG_TEMPROOT": short,
            },
            capture_output=True,
            text=True,
            timeout=380,
        )  # fmt: skip
    races = "".join(path.read_text() for path in folder.glob("race.*"))
    return "" if ended.returncode == 0 else (ended.stdout + ended.stderr + races)[-6000:]
