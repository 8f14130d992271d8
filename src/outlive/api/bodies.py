"""What requests carry: bodies of limited size, read into what was expected or refused with the reason."""

from typing import TypeVar

import msgspec
from starlette.requests import Request

from outlive.errors import UsageInvalid

MOST_BODY_BYTES = 1024 * 1024

T = TypeVar("T")


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


def flag(request: Request, name: str) -> bool:
    """Whether a yes-or-no parameter of the query is given."""
    return request.query_params.get(name, "") in ("1", "true", "yes")


def number(request: Request, name: str, default: float) -> float:
    """A number from the query. Raises UsageInvalid for one that makes no sense."""
    text = request.query_params.get(name)
    try:
        found = float(text) if text is not None else default
    except ValueError:
        found = float("nan")
    if not 0 <= found < 1e9:
        raise UsageInvalid(f"{name}={text} is no number that makes sense here.")
    return found
