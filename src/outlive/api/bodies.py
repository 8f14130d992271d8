"""What requests carry: bodies of limited size, read into what was expected or refused with the reason."""

import re
from typing import Annotated, TypeVar

import msgspec
from starlette.requests import Request

from outlive.errors import UsageInvalid

MOST_BODY_BYTES = 1024 * 1024
_WHOLE = "outlive.body"

T = TypeVar("T")

DryRun = Annotated[bool, msgspec.Meta(description="Change nothing; answer with the commands that would be decided.")]


_REVISION = re.compile(r'"(0|[1-9][0-9]{0,17})"')


def etag(revision: int) -> dict[str, str]:
    """The header that tells a revision."""
    return {"ETag": f'"{revision}"'}


def if_revision(request: Request) -> int | None:
    """The revision that If-Match names; None without one. Raises UsageInvalid."""
    given = request.headers.get("if-match")
    if given is None:
        return None
    if not (matched := _REVISION.fullmatch(given)):
        raise UsageInvalid(
            f"If-Match cannot be {given[:80]!r}.", remedy='give one revision in quotes, as an ETag has it: "17"'
        )
    return int(matched[1])


class DryRunOnly(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Whether a wish is only tried out."""

    dry_run: DryRun = False


def decoded(text: bytes, kind: type[T]) -> T:
    """Read a JSON body. Raises UsageInvalid."""
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UsageInvalid("The request's body is not what was expected.", cause=str(error)) from error


async def body(request: Request) -> bytes:
    """The whole body, however often it is asked for. Raises UsageInvalid when it is too large."""
    if isinstance(known := request.scope.get(_WHOLE), bytes):
        return known
    whole = b""
    async for chunk in request.stream():
        whole += chunk
        if len(whole) > MOST_BODY_BYTES:
            raise UsageInvalid("The request's body is too large.", cause=f"more than {MOST_BODY_BYTES} bytes")
    request.scope[_WHOLE] = whole
    return whole
