"""How the API's paths are declared: once, beside the handler that answers them.

`route` notes on a handler its method and path, what a request may carry, and what is answered. From these notes the
paths are served (`served`) and the OpenAPI document is made (`document`), so that neither can say what the other does
not. What a request carries is checked here, before its handler sees it: a parameter that a path does not have is
refused, since a misspelt `dry_run` must not act.
"""

import math
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outlive.errors import UsageInvalid

JSON = "application/json"
NDJSON = "application/x-ndjson"
EVENTS = "text/event-stream"
RAW = "application/octet-stream"
TEXT = "text/plain"
TOML = "application/toml"

_NOTE = "__declared__"
_QUERY = "outlive.query"

Handler = Callable[[Request], Awaitable[Response]]
Around = Callable[["Declared", Handler, Request], Awaitable[Response]]
F = TypeVar("F", bound=Callable[..., Awaitable[Response]])
Q = TypeVar("Q", bound=msgspec.Struct)


class Plain(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A path without parameters."""


@dataclass(frozen=True, slots=True)
class Declared:
    """One path and method.

    answer:    what the JSON of an answer says; None where `media` is another kind.  statuses: of good answers.
    query:     the parameters, a struct whose fields say which there are, of what type, and what for.
    body:      what a request's JSON says; bytes: it is taken as it is, of the kind `takes`.
    problems:  the statuses of refusals beyond those that any path may answer with.
    to_peers:  other agents may ask it too, by TLS.  streams: the answer goes on.
    matches:   If-Match is heeded.  headers: those of a good answer, with what each tells.
    asks:      it changes nothing, whatever its method.
    acts:      what it does is no change of the store, so that it can be half done.
    large:     its body is too large to be looked at twice; doing it again changes nothing, so that it needs no key.
    """

    method: str
    path: str
    answer: Any = None
    media: str = JSON
    statuses: tuple[int, ...] = (200,)
    query: type[msgspec.Struct] = Plain
    body: Any = None
    takes: str = JSON
    problems: tuple[int, ...] = ()
    to_peers: bool = False
    streams: bool = False
    matches: bool = False
    asks: bool = False
    acts: bool = False
    large: bool = False
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def writes(self) -> bool:
        """Whether a request may change something, so that it can carry a key by which it is done once."""
        return self.method != "GET" and not self.asks


def route(method: str, path: str, answer: Any = None, **more: Any) -> Callable[[F], F]:
    """Declare the handler below to answer this method and path; the rest as `Declared` has it."""
    declared = Declared(method, path, answer, **more)

    def note(handler: F) -> F:
        setattr(handler, _NOTE, declared)
        return handler

    return note


def declared_in(kind: type) -> Iterator[tuple[str, str, Declared]]:
    """What a class of handlers declares: the handler's name, its docstring and the declaration."""
    for name, member in vars(kind).items():
        if isinstance(declared := getattr(member, _NOTE, None), Declared):
            yield name, member.__doc__ or "", declared


def served(groups: Iterable[object], around: Around, *, peers_only: bool) -> list[Route]:
    """One route a path, for what these objects declare. peers_only: just what other agents may ask.

    around: is given each request with its declaration and handler; it has the parameters read (`take`), and answers.
    """
    paths: dict[str, dict[str, tuple[Declared, Handler]]] = {}
    for group in groups:
        for name, _, declared in declared_in(type(group)):
            if declared.to_peers or not peers_only:
                methods = paths.setdefault(declared.path, {})
                assert declared.method not in methods, f"{declared.method} {declared.path} is declared twice"
                methods[declared.method] = (declared, getattr(group, name))
    return [_route(path, methods, around) for path, methods in paths.items()]


def _route(path: str, methods: dict[str, tuple[Declared, Handler]], around: Around) -> Route:
    async def answer(request: Request) -> Response:
        declared, handler = methods["GET" if request.method == "HEAD" else request.method]
        return await around(declared, handler, request)

    made = Route(path, answer, methods=list(methods))
    if "GET" in methods and methods["GET"][0].streams and made.methods is not None:
        made.methods.discard("HEAD")  # there is no head of what never ends
    return made


def take(request: Request, declared: Declared) -> None:
    """Read the parameters, for `query`. Raises UsageInvalid."""
    request.scope[_QUERY] = _read(request, declared.query)


def query(request: Request, kind: type[Q]) -> Q:
    """The request's parameters, as its path declares them."""
    found = request.scope[_QUERY]
    assert isinstance(found, kind)
    return found


def tries_out(request: Request) -> bool:
    """Whether the request is a dry run."""
    return bool(getattr(request.scope[_QUERY], "dry_run", False))


def _read(request: Request, kind: type[Q]) -> Q:
    given = request.query_params.multi_items()
    try:
        if len(dict(given)) < len(given):
            raise ValueError("a parameter is given twice")
        found = msgspec.convert(dict(given), kind, strict=False)
        for name in kind.__struct_fields__:
            value = getattr(found, name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} is no number that makes sense here")
    except (msgspec.MsgspecError, ValueError) as error:
        known = ", ".join(kind.__struct_encode_fields__) or "none"
        raise UsageInvalid(
            f"The parameters of {request.scope['path'][:120]} are not what was expected.",
            cause=str(error),
            remedy=f"it has these: {known}",
        ) from error
    return found
