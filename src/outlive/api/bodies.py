"""What requests carry: bodies of limited size, read into what was expected or refused with the reason."""

from typing import Annotated, TypeVar

import msgspec
from starlette.requests import Request

from outlive.errors import UsageInvalid

MOST_BODY_BYTES = 1024 * 1024

T = TypeVar("T")

DryRun = Annotated[bool, msgspec.Meta(description="Change nothing; answer with the commands that would be decided.")]


class DryRunOnly(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Whether a wish is only tried out."""

    dry_run: DryRun = False


def decoded(text: bytes, kind: type[T]) -> T:
    """Read a JSON body. Raises UsageInvalid."""
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise UsageInvalid("The request's body is not what was expected.", cause=str(error)) from error


async def body(request: Request) -> bytes:
    """The whole body. Raises UsageInvalid when it is too large."""
    whole = b""
    async for chunk in request.stream():
        whole += chunk
        if len(whole) > MOST_BODY_BYTES:
            raise UsageInvalid("The request's body is too large.", cause=f"more than {MOST_BODY_BYTES} bytes")
    return whole
