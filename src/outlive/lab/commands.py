"""The programs by which a lab's network is made: `ip` and `tc`."""

import subprocess

from outlive.errors import Failed

COMMAND_S = 60.0


def ip(*arguments: str, tolerate: bool = False) -> str:
    """Run `ip` and return what it prints. Raises Failed with its complaint unless `tolerate`."""
    return _run(["ip", *arguments], "", tolerate)


def tc(namespace: str, lines: list[str], *, tolerate: bool = False) -> str:
    """Run many commands of `tc` at once; with `tolerate` one that fails does not keep the rest from being run."""
    command = ["tc", "-n", namespace, *(["-force"] if tolerate else []), "-batch", "-"]
    return _run(command, "".join(f"{line}\n" for line in lines), tolerate) if lines else ""


def _run(command: list[str], text: str, tolerate: bool) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    if done.returncode and not tolerate:
        raise Failed(
            f"`{' '.join(command)}` failed.",
            cause=done.stderr.strip(),
            remedy="the lab needs root and network namespaces: see `outlive doctor`",
        )
    return done.stdout
