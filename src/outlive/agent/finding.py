"""What one check of a host found, and how it is tried so that no check can spoil or hold up the others.

The checks themselves are in `checkup_machine` and `checkup_cluster`, and which of them are made, in which order, is in
`checkup`.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from outlive.errors import OutliveError

LONGEST_S = 20.0


class Result(StrEnum):
    """WARNING: works, with less protection or convenience. FAILED: Outlive cannot do its work like this."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. found: what is so; fix: what to do about it, '' when nothing has to be done."""

    id: str
    result: Result
    found: str
    fix: str = ""


Checked = Finding | Sequence[Finding]


def ok(id: str, found: str) -> Finding:
    """All is well."""
    return Finding(id, Result.OK, found)


def warning(id: str, found: str, fix: str) -> Finding:
    """It works, but not as well as it should."""
    return Finding(id, Result.WARNING, found, fix)


def failed(id: str, found: str, fix: str) -> Finding:
    """It does not work."""
    return Finding(id, Result.FAILED, found, fix)


async def tried(id: str, check: Callable[[], Checked | Awaitable[Checked]]) -> list[Finding]:
    """Make one check; whatever it ends with, and a check that takes longer than LONGEST_S, becomes a finding."""
    try:
        async with asyncio.timeout(LONGEST_S):
            found = check()
            if inspect.isawaitable(found):
                found = await found
    except TimeoutError:
        return [failed(id, f"no answer within {LONGEST_S:g} s", "look at what it waits for: storage, or the kernel")]
    except OutliveError as error:
        return [failed(id, str(error), error.remedy)]
    except OSError as error:
        return [failed(id, str(error), "mend what the kernel complains about")]
    except Exception as error:
        return [failed(id, f"the check itself broke: {type(error).__name__}: {error}", "report it")]
    return [found] if isinstance(found, Finding) else list(found)
