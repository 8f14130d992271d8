"""Requests that no client of ours makes: each gets a problem or a refusal, and the agent goes on."""

import http.client
import json
import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outlive.api.bodies import MOST_BODY_BYTES
from outlive.api.machines import MOST_TYPED_BYTES
from outlive.client.connection import Answered

from ..one_host import OneHost, workload

few = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
KINDS = ("migrate", "failover", "checkpoint", "resume")
PATHS = (
    "/v1/workloads/{}", "/v1/workloads/{}/why", "/v1/hosts/{}", "/v1/operations/{}", "/v1/workloads/{}/screenshot",
    "/v1/workloads/{}/console", "/v1/workloads/{}/checkpoints", "/v1/workloads/{}/checkpoints/verify",
    "/v1/hosts/one/machines/{}", "/v1/hosts/one/machines/{}/screenshot", "/v1/hosts/one/machines/{}/console",
    "/v1/hosts/one/machines/{}/checkpoints", "/v1/hosts/one/machines/{}/checkpoints/verify", "/v1/hosts/{}/machines/x",
    "/v1/hosts/{}/boards",
)  # fmt: skip
FORMS = [("PUT", "/v1/workloads/garbled"), ("PUT", "/v1/workloads/garbled/desired"), ("POST", "/v1/operations")]


@pytest.fixture(autouse=True)
def unharmed(one_host: OneHost) -> Iterator[None]:
    """Whatever a test sends, afterwards the agent is as it was."""
    before, pid = one_host.names(), peer(one_host)
    yield
    assert one_host.names() == before
    assert one_host.client.get("/healthz")["store_reachable"]
    assert peer(one_host) == pid, "the same process answers"
    assert one_host.client.get("/v1/cluster")["outlook"]["leader"] == "one"


def peer(one_host: OneHost) -> int | None:
    from pathlib import Path

    from outlive.agent.presence import listener

    return listener(Path(one_host.socket))


def ask(one_host: OneHost, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    """One request, as its own bytes say it."""
    connection = http.client.HTTPConnection("localhost", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.settimeout(60)
    connection.sock.connect(one_host.socket)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def is_problem(status: int, answer: bytes) -> bool:
    problem = json.loads(answer)
    return 400 <= status < 500 and bool(problem["id"]) and bool(problem["title"])


@few
@given(form=st.sampled_from(FORMS), body=st.binary(max_size=300))
def test_garbled_bodies_are_problems(one_host: OneHost, form: tuple[str, str], body: bytes) -> None:
    assert is_problem(*ask(one_host, *form, body))


@few
@given(form=st.sampled_from(FORMS), body=json_values)
def test_bodies_of_another_shape_are_problems(one_host: OneHost, form: tuple[str, str], body: object) -> None:
    assert is_problem(*ask(one_host, *form, json.dumps(body).encode()))


@few
@given(
    body=st.fixed_dictionaries(
        {"kind": st.sampled_from([*KINDS, "x"]) | json_values, "workload": st.text(max_size=80)},
        optional={"target": json_values, "checkpoint": json_values | st.text(max_size=220), "more": json_values},
    )
)
def test_operations_on_whatever_name_are_problems(one_host: OneHost, body: object) -> None:
    assert is_problem(*ask(one_host, "POST", "/v1/operations", json.dumps(body).encode()))


@few
@given(name=st.text(min_size=1, max_size=40))
def test_any_name_in_a_path_is_found_or_not(one_host: OneHost, name: str) -> None:
    from urllib.parse import quote

    for path in PATHS:
        status, answer = ask(one_host, "GET", path.format(quote(name, safe="")), b"")
        assert is_problem(status, answer), (path, status)


@few
@given(name=st.text(min_size=1, max_size=40), session=st.text(min_size=1, max_size=60), keys=st.binary(max_size=100))
def test_what_is_typed_at_no_console_is_a_problem(one_host: OneHost, name: str, session: str, keys: bytes) -> None:
    from urllib.parse import quote

    for at in ("/v1/workloads", "/v1/hosts/one/machines", "/v1/hosts/two/machines"):
        for which in (session, f"one.{session}", f"two.{session}"):
            path = f"{at}/{quote(name, safe='')}/console/{quote(which, safe='')}"
            assert is_problem(*ask(one_host, "POST", path, keys))


@pytest.mark.parametrize("path", ["/v1/workloads/x/console/one.y", "/v1/hosts/one/machines/x/console/one.y"])
def test_too_much_to_type_at_once_is_refused(one_host: OneHost, path: str) -> None:
    status, answer = ask(one_host, "POST", path, b"k" * (MOST_TYPED_BYTES + 1))
    assert (status, json.loads(answer)["title"]) == (422, "That is too much to type at once.")


@pytest.mark.parametrize("query", ["replay=-1", "replay=x", "replay=nan", "replay=1e99"])
def test_a_replay_that_makes_no_sense_is_refused(one_host: OneHost, query: str) -> None:
    for at in ("/v1/workloads/x/console", "/v1/hosts/one/machines/x/console"):
        status, answer = ask(one_host, "GET", f"{at}?{query}", b"")
        assert (status, is_problem(status, answer)) == (422, True)


@few
@given(name=st.text(max_size=250).filter(lambda text: text.strip() != ""))
def test_whatever_is_called_a_checkpoint_is_found_or_not(one_host: OneHost, name: str) -> None:
    from urllib.parse import quote

    for at in ("/v1/workloads/x", "/v1/hosts/one/machines/x"):
        assert is_problem(*ask(one_host, "GET", f"{at}/checkpoints/verify?checkpoint={quote(name, safe='')}", b""))


@few
@given(body=json_values)
def test_networks_of_another_shape_are_problems(one_host: OneHost, body: object) -> None:
    if body != {}:
        assert is_problem(*ask(one_host, "PUT", "/v1/networks/Garbled", json.dumps(body).encode()))
    assert is_problem(*ask(one_host, "PUT", "/v1/networks/Garbled", b"{}"))


def test_a_method_that_is_not_had_is_a_problem(one_host: OneHost) -> None:
    for method, path in (
        ("POST", "/v1/workloads/x/screenshot"), ("DELETE", "/v1/workloads/x/console"), ("PUT", "/v1/operations/x"),
        ("POST", "/v1/hosts/one/machines/x"), ("GET", "/v1/workloads/x/console/y"), ("DELETE", "/v1/operations/x"),
    ):  # fmt: skip
        assert is_problem(*ask(one_host, method, path, b""))


@few
@given(cut=st.integers(0, 200), flipped=st.integers(0, 200), bit=st.integers(0, 7))
def test_a_workload_file_damaged_on_the_way_is_refused_or_is_another_name(
    one_host: OneHost, cut: int, flipped: int, bit: int
) -> None:
    whole = bytearray(workload("whole", "/usr/bin/true").encode())
    whole[flipped % len(whole)] ^= 1 << bit
    del whole[len(whole) - cut % len(whole) :]
    assert is_problem(*ask(one_host, "PUT", "/v1/workloads/garbled", bytes(whole)))


def test_deeply_nested_bodies_are_problems(one_host: OneHost) -> None:
    for form in FORMS:
        assert is_problem(*ask(one_host, *form, b"[" * 100_000))
        assert is_problem(*ask(one_host, *form, b'{"kind":' * 50_000))


def test_keys_that_are_no_text_are_problems(one_host: OneHost) -> None:
    for form in FORMS:
        assert is_problem(*ask(one_host, *form, b'{"\x80":1}'))


def test_a_huge_body_is_refused_by_our_client_too(one_host: OneHost) -> None:
    for size in (MOST_BODY_BYTES + 1, 8 * MOST_BODY_BYTES):
        with pytest.raises(Answered) as caught:
            one_host.client.put("/v1/workloads/huge", b"#" * size)
        assert caught.value.sentence == "The request's body is too large."


def test_the_largest_body_is_read(one_host: OneHost) -> None:
    with pytest.raises(Answered) as caught:
        one_host.client.put("/v1/workloads/huge", b"#" * MOST_BODY_BYTES)
    assert caught.value.id == "workload-file.invalid"


@pytest.mark.parametrize(
    "raw",
    [
        b"\0" * 100,
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"PUT /v1/workloads/x HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"PUT /v1/workloads/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"PUT /v1/workloads/x HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\nhalf",
        os.urandom(1000),
    ],
    ids=["zeros", "no-path", "version", "long-path", "many-headers", "length", "chunks", "half", "noise"],
)
def test_what_is_no_http_is_hung_up_on(one_host: OneHost, raw: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(60)
        connection.connect(one_host.socket)
        try:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(4096)
        except OSError:
            answer = b""
    assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), answer[:100]


def test_many_connections_that_say_nothing_do_not_keep_others_out(one_host: OneHost) -> None:
    idle = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(100)]
    try:
        for each in idle:
            each.connect(one_host.socket)
        assert one_host.client.get("/healthz")["host"] == "one"
    finally:
        for each in idle:
            each.close()


def test_the_socket_is_for_root_alone(one_host: OneHost) -> None:
    assert os.stat(one_host.socket).st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "supposed",
    [
        {}, {"key": "claims/one", "value": None}, {"key": "leader", "value": ""},
        {"key": "workloads/x", "value": "e30="},
        {"key": "workloads/x", "value": "no base64"}, {"key": "policiesx", "value": "e30="}, {"key": "", "value": None},
        {"key": "operations/x", "value": "bnVsbA=="},
    ],
)  # fmt: skip
def test_what_is_no_wish_is_not_supposed(one_host: OneHost, supposed: object) -> None:
    assert is_problem(*ask(one_host, "POST", "/v1/hosts/one/decisions", json.dumps(supposed).encode()))


@few
@given(kind=st.sampled_from(("workloads", "operations", "networks", "policies", "x")), value=json_values)
def test_whatever_is_supposed_is_decided_upon_or_refused(one_host: OneHost, kind: str, value: object) -> None:
    from base64 import b64encode

    supposed = {
        "key": kind if kind == "policies" else f"{kind}/x",
        "value": b64encode(json.dumps(value).encode()).decode(),
    }
    status, answer = ask(one_host, "POST", "/v1/hosts/one/decisions", json.dumps(supposed).encode())
    assert status == 200 or is_problem(status, answer), answer


def test_a_parameter_that_a_path_does_not_have_does_nothing(one_host: OneHost) -> None:
    text = workload("misspelt", "/usr/bin/true").encode()
    for query in ("dryrun=1", "dry_run=perhaps", "dry_run=1&dry_run=0", "dry_run=1&x="):
        assert is_problem(*ask(one_host, "PUT", f"/v1/workloads/misspelt?{query}", text)), query
