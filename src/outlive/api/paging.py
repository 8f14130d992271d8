"""Lists in pages: how many at once, and a cursor that says where the next page begins.

A cursor names the last thing of its page, and the next page begins with what is after that name, whether or not the
thing is still there. So whatever is listed throughout is told exactly once, however much else comes and goes.
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Annotated

import msgspec

from outlive.errors import UsageInvalid

MOST = 5000
USUAL = 500

Limit = Annotated[int, msgspec.Meta(ge=1, le=MOST, description="How many at most.")]
Cursor = Annotated[str, msgspec.Meta(max_length=1000, description="The `next` of the page before; none: the first.")]


class CursorInvalid(UsageInvalid):
    """A cursor that this list did not give."""

    id = "cursor.invalid"


class Page(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Which page of a list."""

    limit: Limit = USUAL
    cursor: Cursor = ""


def ascending(what: str, names: Iterable[str], page: Page) -> tuple[list[str], str | None]:
    """One page of names in order, and the cursor of the next. what: the list's own word. Raises CursorInvalid."""
    ordered = sorted(names)
    begin = bisect_right(ordered, after) if (after := _read(what, page.cursor)) else 0
    found = ordered[begin : begin + page.limit]
    return found, _cursor(what, found[-1]) if begin + page.limit < len(ordered) else None


def backwards(what: str, keys: list[str], page: Page) -> tuple[list[str], str | None]:
    """The last keys of an ordered list, in its order, and the cursor of those before them. Raises CursorInvalid."""
    end = bisect_left(keys, before) if (before := _read(what, page.cursor)) else len(keys)
    begin = max(0, end - page.limit)
    return keys[begin:end], _cursor(what, keys[begin]) if begin > 0 else None


def _cursor(what: str, name: str) -> str:
    return urlsafe_b64encode(f"{what}:{name}".encode()).decode().rstrip("=")


def _read(what: str, cursor: str) -> str:
    if not cursor:
        return ""
    try:
        text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        text = ""
    kind, _, name = text.partition(":")
    if kind != what or not name or _cursor(what, name) != cursor:
        raise CursorInvalid(
            f"{cursor[:80]!r} is no cursor of this list.",
            remedy="give back the `next` of the page before, or begin without a cursor",
        )
    return name
