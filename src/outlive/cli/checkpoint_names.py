"""The names of checkpoints, as words of a command and in an address."""

import re
from urllib.parse import quote

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@+-]{0,200}")


def CHECKPOINT(text: str) -> str:
    """The type of an argument that names a checkpoint; what cannot be a name is not asked for."""
    if _NAME.fullmatch(text):
        return text
    from outlive.errors import UsageInvalid

    raise UsageInvalid(
        f"{text[:80]!r} cannot name a checkpoint.",
        cause="a name has up to 201 letters, digits and . _ : @ + -, and begins with a letter, a digit or '_'",
        remedy="see `outlive checkpoints NAME`",
    )


def checkpoints_of(workload: str, more: str = "", checkpoint: str | None = None) -> str:
    """The address of a workload's checkpoints, or of what can be asked about them."""
    which = f"?checkpoint={quote(checkpoint, safe='')}" if checkpoint else ""
    return f"/v1/workloads/{workload}/checkpoints{more}{which}"
