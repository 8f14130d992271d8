"""The OpenAPI document (3.1), made of what the handlers declare and of the types that they answer with.

Every agent serves it at `/v1/openapi.json`, and docs/openapi.json is the same text: `python -m outlive.api.publish`
writes it anew, and a test tells when that was forgotten.
"""

import inspect
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from outlive import __version__

from .answers import Problem
from .declaring import Declared, declared_in

PROBLEM = "application/problem+json"
ALWAYS = (422, 502, 503)
"""The statuses of problems that any path may answer with."""

_REF = "#/components/schemas/{name}"
_WORD = re.compile(r"{(\w+)}")

ABOUT = """What `outlive` itself speaks to an agent with. docs/api.md tells how to rely on it.

Every answer that is not what was asked for is a problem (RFC 9457) with an `id` that scripts may match."""

_SAYS = {
    400: "The request is no HTTP that makes sense.",
    404: "There is nothing of that name.",
    409: "It was refused for safety, or somebody else changed it meanwhile.",
    410: "It is not kept any more.",
    422: "What was asked for cannot be understood, or is not valid.",
    502: "It was tried, and what had to do it (an emulator, a storage) failed.",
    503: "The agent cannot reach the store, or the host that would know. Try again after Retry-After seconds.",
}
_IDEMPOTENCY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A text of the client's own: the same request with the same key is done once, whichever agent "
    "it is sent to, and answered alike for a day.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"},
}
_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": 'The revision that the workload must still have, in quotes as in an ETag; "0": it must not exist.',
    "schema": {"type": "string", "pattern": '^"(0|[1-9][0-9]{0,17})"$'},
}


def document(groups: Iterable[type]) -> dict[str, Any]:
    """The document of what these classes of handlers declare."""
    found = [
        (f"{group.__name__.lower()}.{name}", says, declared)
        for group in groups
        for name, says, declared in declared_in(group)
    ]
    kinds = [kind for _, _, declared in found for kind in (declared.answer, declared.query, declared.body)]
    wanted = [*dict.fromkeys(kind for kind in kinds if kind not in (None, bytes)), Problem]
    told, components = msgspec.json.schema_components(wanted, ref_template=_REF)
    by_kind = dict(zip(wanted, told, strict=True))
    parameters = {declared.query: _parameters(components, by_kind, declared.query) for _, _, declared in found}
    paths: dict[str, dict[str, Any]] = {}
    for name, says, declared in found:
        paths.setdefault(declared.path, {})[declared.method.lower()] = {
            "operationId": name,
            **_told(says),
            "parameters": [*_in_path(declared.path), *parameters[declared.query], *_headers(declared)],
            **({"requestBody": _body(declared, by_kind)} if declared.body is not None else {}),
            "responses": _responses(declared, by_kind),
        }
    for kind in {declared.query for _, _, declared in found}:
        components.pop(by_kind[kind]["$ref"].rpartition("/")[2], None)
    schemas = {_short(name): _tidied(schema) for name, schema in components.items()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Outlive", "version": __version__, "description": ABOUT, "license": {"name": "Apache-2.0"}},
        "servers": [{"url": "http://localhost", "description": "The agent's Unix socket, /run/outlive/api.sock"}],
        "paths": _tidied(dict(sorted(paths.items()))),
        "components": {"schemas": {name: schemas[name] for name in sorted(schemas)}},
    }


def _told(says: str) -> dict[str, str]:
    first, _, rest = inspect.cleandoc(says).partition("\n")
    return {"summary": first} | ({"description": rest.strip()} if rest.strip() else {})


def _in_path(path: str) -> list[dict[str, Any]]:
    return [{"name": word, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for word in _WORD.findall(path)]  # fmt: skip


def _parameters(components: dict[str, Any], by_kind: dict[Any, Any], kind: Any) -> list[dict[str, Any]]:
    found = []
    for name, given in components[by_kind[kind]["$ref"].rpartition("/")[2]]["properties"].items():
        says, schema = (
            given.get("description", ""),
            {word: said for word, said in given.items() if word != "description"},
        )
        found.append({"name": name, "in": "query", "required": False, "description": says, "schema": schema})
    return found


def _headers(declared: Declared) -> list[dict[str, Any]]:
    return ([_IDEMPOTENCY] if declared.writes else []) + ([_IF_MATCH] if declared.matches else [])


def _body(declared: Declared, by_kind: dict[Any, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = by_kind[declared.body] if declared.body is not bytes else {"type": "string"}
    return {"required": True, "content": {declared.takes: {"schema": schema}}}


def _responses(declared: Declared, by_kind: dict[Any, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {} if declared.answer is None else by_kind[declared.answer]
    good: dict[str, Any] = {"description": "What was asked for.", "content": {declared.media: {"schema": schema}}}
    if declared.headers:
        good["headers"] = {name: {"description": says, "schema": {"type": "string"}} for name, says in declared.headers}
    refused = {"application/problem+json": {"schema": by_kind[Problem]}}
    found = {str(status): good for status in declared.statuses}
    conflicts = (409,) if declared.writes else ()
    for status in sorted({*declared.problems, *ALWAYS, *conflicts} - set(declared.statuses)):
        found[str(status)] = {"description": _SAYS[status], "content": refused}
    return found


def _short(name: str) -> str:
    """The name of a schema: of two types of one name each has its file's before it."""
    *_, file, kind = ("", *name.split("."))
    return "".join(word.capitalize() for word in file.split("_")) + kind if "." in name else name


def _tidied(value: Any) -> Any:
    """Docstrings as they read, and names of schemas without those of our folders."""
    if isinstance(value, dict):
        return {name: _tidied_member(name, held) for name, held in value.items()}
    return [_tidied(each) for each in value] if isinstance(value, (list, tuple)) else value


def _tidied_member(name: str, held: Any) -> Any:
    if name == "description" and isinstance(held, str):
        return inspect.cleandoc(held)
    if name == "$ref" and isinstance(held, str):
        before, slash, named = held.rpartition("/")
        return before + slash + _short(named)
    return _tidied(held)
