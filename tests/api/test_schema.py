"""What the OpenAPI document allows, and much that it forbids, is asked of a running agent; every answer is held to it.

The host is one of its own, since policies and workloads are changed at random.
"""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from outlive.api.app import GROUPS
from outlive.api.document import document

from ..one_host import OneHost, another, workload

ANSWERED_WITHIN_S = 60.0


def no_mistake(context: Any, response: schemathesis.Response, case: Any) -> None:
    """No answer is our own mistake; that something cannot be reached, or has failed, is an answer."""
    assert response.status_code in range(200, 500) or response.status_code in (502, 503), response.text


CHECKS = [
    no_mistake, status_code_conformance, content_type_conformance, response_headers_conformance,
    response_schema_conformance, negative_data_rejection, unsupported_method, allow_header_conformance,
]  # fmt: skip
ENDLESS = ["/v1/events/stream"]


class _Connection(HTTPConnection):
    """HTTP over the agent's Unix socket."""

    path = ""

    def _new_conn(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(ANSWERED_WITHIN_S)
        made.connect(self.path)
        return made


class _Socket(HTTPAdapter):
    """Has whatever is asked of any address asked at the socket."""

    def __init__(self, path: str) -> None:
        super().__init__()
        kind = type("Here", (_Connection,), {"path": path})
        self._pool = HTTPConnectionPool("localhost")
        self._pool.ConnectionCls = kind

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> HTTPConnectionPool:
        return self._pool

    def close(self) -> None:
        self._pool.close()
        super().close()


@pytest.fixture(scope="module")
def agent() -> Iterator[tuple[OneHost, requests.Session]]:
    with another() as host, requests.Session() as session:
        session.mount("http://", _Socket(host.socket))
        host.apply("web")
        yield host, session


@schemathesis.serializer("application/toml")
def as_it_is(context: Any, value: Any) -> Any:
    """A file is sent as the bytes that it is."""
    return value if isinstance(value, bytes) else str(value).encode()


FILES = st.sampled_from([workload(name, "/usr/bin/sleep", "3600").encode() for name in ("web", "other")])
schemathesis.openapi.media_type("application/toml", FILES | st.binary(max_size=200))

schema = schemathesis.openapi.from_dict(document(GROUPS)).exclude(path=ENDLESS)


@schema.hook
def map_query(context: schemathesis.HookContext, query: dict[str, Any] | None) -> dict[str, Any] | None:
    """Logs that are followed do not end, and waiting finds nothing out."""
    kept = {name: value for name, value in (query or {}).items() if name != "follow"}
    if isinstance(kept.get("wait_s"), (int, float)):
        kept["wait_s"] = min(kept["wait_s"], 0.1)
    return kept


@schema.hook
def map_path_parameters(context: schemathesis.HookContext, path_parameters: dict[str, Any]) -> dict[str, Any]:
    """Of names that are made up, many are those of what is there."""
    known = {"name": "web", "host": "one", "workload": "web"}
    operation = context.operation
    if path_parameters and operation is not None and operation.path.startswith("/v1/hosts/{name}"):
        known["name"] = "one"
    return {
        name: known[name] if name in known and len(str(value)) % 2 else value
        for name, value in (path_parameters or {}).items()
    }


def some(examples: int) -> settings:
    return settings(
        max_examples=examples, deadline=None, phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[*HealthCheck], derandomize=examples < 10,
    )  # fmt: skip


def ask(agent: tuple[OneHost, requests.Session], case: Any) -> None:
    case.call_and_validate("http://localhost", agent[1], checks=CHECKS, timeout=ANSWERED_WITHIN_S)


@schema.parametrize()
@some(2)
def test_every_answer_is_as_the_document_says(agent: tuple[OneHost, requests.Session], case: Any) -> None:
    ask(agent, case)


@pytest.mark.soak
@pytest.mark.timeout(600)
@schema.parametrize()
@some(150)
def test_every_answer_is_so_however_often_it_is_asked(agent: tuple[OneHost, requests.Session], case: Any) -> None:
    ask(agent, case)


def test_the_agent_has_made_no_mistake_of_its_own(agent: tuple[OneHost, requests.Session]) -> None:
    """Last: after all that was asked, the same agent leads, and its log knows of no mistake."""
    host, _ = agent
    assert host.client.get("/v1/cluster")["outlook"]["leader"] == "one"
    logs = [path for path in host.folder.rglob("*.log") if "Traceback" in path.read_text(errors="replace")]
    assert logs == []
