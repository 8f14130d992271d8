"""The texts of cloud-init that a workload file names by path: they are read when it is, and are texts from then on.

Only a file that is read from disk has a folder that paths could begin at; what comes to the API is whole in itself.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .guest_shape import LONGEST_SEED
from .problems import Problems, printable

TEXTS = ("user_data", "meta_data", "network_config")


def names_files(document: Mapping[str, Any]) -> bool:
    """Whether a document has texts in files of their own."""
    vm = document.get("vm")
    seed = vm.get("cloud_init") if isinstance(vm, dict) else None
    return isinstance(seed, dict) and any(f"{name}_file" in seed for name in TEXTS)


def take_in(values: dict[str, Any], folder: Path | None, problems: Problems) -> None:
    """Put the texts of files in the place of their paths. It blocks.

    folder: where relative paths begin; None: files cannot be named here.
    """
    seed = values.get("vm", {}).get("cloud_init", {})
    for name in TEXTS:
        path = seed.pop(f"{name}_file", None)
        if path is None:
            continue
        at = ("vm", "cloud_init", f"{name}_file")
        if name in seed:
            problems.add(at, f"stands beside {name}, and it is one of both", "Remove one of both.")
        elif folder is None:
            fix = f"Write its text as {name}, or apply the file with `outlive apply`, which reads it."
            problems.add(at, "names a file, which cannot be read from here", fix)
        else:
            text, why = _text(folder / path)
            if why:
                problems.add(at, why, "Name a text file of UTF-8 that this user can read.")
            seed[name] = text


def _text(path: Path) -> tuple[str, str]:
    """A file's text; or none, and why not."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return "", "names something that is no file"
            content = file.read(4 * LONGEST_SEED + 1)
        text = content.decode()
    except (OSError, ValueError) as failure:
        errno = failure.errno if isinstance(failure, OSError) else None
        why = os.strerror(errno) if errno else "it is not UTF-8"
        return "", f"names {printable(str(path))}, which cannot be read: {why}"
    if len(text) > LONGEST_SEED or "\x00" in text:
        return "", f"names a file of more than {LONGEST_SEED} characters, or with one of code 0"
    return text, ""
