"""A request with a key is done once and answered alike, by whichever agent and however often it is asked."""

import http.client
import json
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import pytest
from starlette.requests import Request

from outlive.api import once
from outlive.api.declaring import Declared, take
from outlive.api.once import KEY_HEADER, REPLAYED_HEADER, Begun
from outlive.api.problems import Encoded, NotFound
from outlive.api.view import View
from outlive.cluster.records import RequestRecord
from outlive.cluster.transaction import Delete, KeyValue, Put, Transaction, TransactionResult

from ..one_host import OneHost, workload

SLEEP = ("/usr/bin/sleep", "3600")


class Answer(NamedTuple):
    status: int
    told: Any
    again: bool
    etag: str


def ask(one_host: OneHost, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    connection = http.client.HTTPConnection("localhost", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.settimeout(60)
    connection.sock.connect(one_host.socket)
    encoded = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, encoded if body is not None else None, named)
        answer = connection.getresponse()
        told = json.loads(answer.read())
        return Answer(
            answer.status, told, answer.headers.get(REPLAYED_HEADER) == "true", answer.headers.get("etag", "")
        )
    finally:
        connection.close()


def key() -> dict[str, str]:
    return {KEY_HEADER: os.urandom(8).hex()}


@pytest.fixture(scope="module")
def subject(one_host: OneHost) -> Iterator[str]:
    one_host.apply("subject")
    yield "subject"
    one_host.forget("subject", "subject-b")


def operations(one_host: OneHost) -> set[str]:
    return {each["id"] for each in one_host.client.pages("/v1/operations", "operations")}


def test_an_operation_asked_for_twice_with_one_key_is_one_operation(one_host: OneHost, subject: str) -> None:
    before, wish, mine = operations(one_host), {"kind": "migrate", "workload": subject}, key()
    first, second = (ask(one_host, "POST", "/v1/operations", wish, **mine) for _ in range(2))
    assert (first.status, first.told, first.again, second.again) == (second.status, second.told, False, True)
    assert operations(one_host) - before == {first.told["operation"]["id"]}
    assert not ask(one_host, "POST", "/v1/operations", wish, **key()).again


def test_of_many_at_once_one_is_done_and_all_are_answered_alike(one_host: OneHost, subject: str) -> None:
    before, wish, mine = operations(one_host), {"kind": "migrate", "workload": subject}, key()
    answers: list[Answer] = []
    threads = [
        threading.Thread(target=lambda: answers.append(ask(one_host, "POST", "/v1/operations", wish, **mine)))
        for _ in range(8)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len({each.told["operation"]["id"] for each in answers}) == 1
    assert (len(answers), sum(not each.again for each in answers)) == (8, 1)
    assert len(operations(one_host) - before) == 1


def test_a_wish_repeated_later_does_not_undo_what_others_wished_since(one_host: OneHost, subject: str) -> None:
    path, mine = f"/v1/workloads/{subject}/desired", key()
    first = ask(one_host, "PUT", path, {"desired": "stopped"}, **mine)
    ask(one_host, "PUT", path, {"desired": "running"})
    again = ask(one_host, "PUT", path, {"desired": "stopped"}, **mine)
    assert (again.told, again.again) == (first.told, True)
    assert one_host.client.get(f"/v1/workloads/{subject}")["record"]["desired"] == "running"


def test_what_had_nothing_to_change_has_nothing_to_change_later(one_host: OneHost, subject: str) -> None:
    path, mine = f"/v1/workloads/{subject}/desired", key()
    assert not ask(one_host, "PUT", path, {"desired": "running"}, **mine).told["changed"]
    ask(one_host, "PUT", path, {"desired": "stopped"})
    assert ask(one_host, "PUT", path, {"desired": "running"}, **mine).again
    assert one_host.client.get(f"/v1/workloads/{subject}")["record"]["desired"] == "stopped"
    one_host.client.put(path, {"desired": "running"})


def test_another_request_with_the_same_key_is_refused(one_host: OneHost, subject: str) -> None:
    mine = key()
    ask(one_host, "PUT", f"/v1/workloads/{subject}/desired", {"desired": "running"}, **mine)
    for method, path, body in (
        ("PUT", f"/v1/workloads/{subject}/desired", {"desired": "stopped"}),
        ("PUT", "/v1/workloads/other/desired", {"desired": "running"}),
        ("POST", "/v1/operations", {"kind": "migrate", "workload": subject}),
        ("DELETE", f"/v1/workloads/{subject}", None),
    ):
        refused = ask(one_host, method, path, body, **mine)
        assert (refused.status, refused.told["id"]) == (422, "idempotency.reused"), path


def test_a_refusal_is_not_kept_and_a_dry_run_uses_no_key_up(one_host: OneHost, subject: str) -> None:
    mine, text = key(), workload("subject-b", *SLEEP)
    assert ask(one_host, "PUT", "/v1/workloads/subject-b/desired", {"desired": "stopped"}, **mine).status == 404
    one_host.client.put("/v1/workloads/subject-b", text.encode())
    assert not ask(one_host, "PUT", "/v1/workloads/subject-b/desired", {"desired": "stopped"}, **mine).again
    mine = key()
    for _ in range(2):
        tried = ask(one_host, "DELETE", "/v1/workloads/subject-b?dry_run=1", **mine)
        assert (tried.told["changed"], tried.again) == (True, False)


@pytest.mark.parametrize("given", ["", " ", "x" * 201, "a b", "ä".encode().decode("latin-1")])
def test_what_can_be_no_key_is_refused(one_host: OneHost, subject: str, given: str) -> None:
    refused = ask(one_host, "PUT", f"/v1/workloads/{subject}/desired", {"desired": "running"}, **{KEY_HEADER: given})
    assert (refused.status, refused.told["id"]) == (422, "usage.invalid")


def test_a_wish_for_a_revision_that_is_over_is_refused_with_the_present_one(one_host: OneHost, subject: str) -> None:
    path = f"/v1/workloads/{subject}"
    shown = ask(one_host, "GET", path)
    revision = shown.told["outlook"]["revision"]
    assert shown.etag == f'"{revision}"'
    changed = ask(one_host, "PUT", f"{path}/desired", {"desired": "stopped"}, if_match=shown.etag)
    assert (changed.status, changed.etag) == (200, f'"{changed.told["revision"]}"')
    for method, at, body in (
        ("PUT", path, workload(subject, *SLEEP)), ("PUT", f"{path}/desired", {"desired": "running"}),
        ("DELETE", path, None), ("DELETE", f"{path}?dry_run=1", None),
    ):  # fmt: skip
        refused = ask(one_host, method, at, body, if_match=shown.etag)
        assert (refused.status, refused.told["id"]) == (409, "revision.changed"), at
        assert refused.told["revision"] == changed.told["revision"]
    assert ask(one_host, "PUT", f"{path}/desired", {"desired": "running"}, if_match=changed.etag).status == 200


def test_a_workload_may_be_made_only_if_it_does_not_exist(one_host: OneHost, subject: str) -> None:
    refused = ask(one_host, "PUT", f"/v1/workloads/{subject}", workload(subject, *SLEEP), if_match='"0"')
    assert (refused.status, refused.told["id"]) == (409, "revision.changed")
    one_host.forget("subject-b")
    made = ask(one_host, "PUT", "/v1/workloads/subject-b", workload("subject-b", *SLEEP), if_match='"0"')
    assert (made.status, made.told["changed"]) == (200, True)


@pytest.mark.parametrize("given", ["17", '"x"', '"-1"', '"1", "2"', "*", 'W/"1"', '"' + "9" * 40 + '"'])
def test_what_can_be_no_revision_is_refused(one_host: OneHost, subject: str, given: str) -> None:
    refused = ask(one_host, "DELETE", f"/v1/workloads/{subject}", if_match=given)
    assert (refused.status, refused.told["id"]) == (422, "usage.invalid")


def test_an_answer_that_cannot_be_read_is_not_taken_for_none() -> None:
    """Somebody wrote to the store by hand: whether the request was done is not known."""
    kept = KeyValue("requests/x", b"{", 1, 1)
    with pytest.raises(Begun, match="cannot be read"):
        once._again(kept, RequestRecord("x", "", "a", 0))


class Store:
    """As much of an agent as `once` needs."""

    host = "a"

    def __init__(self) -> None:
        self.keys: dict[str, bytes] = {}

    async def transact(self, transaction: Transaction) -> TransactionResult:
        succeeded = all(compare.key not in self.keys for compare in transaction.compares)
        for write in transaction.writes if succeeded else ():
            if isinstance(write, Put):
                self.keys[write.key] = write.value
            elif isinstance(write, Delete):
                self.keys.pop(write.key, None)
        return TransactionResult(succeeded, 1)

    async def read(self, key: str) -> KeyValue | None:
        return KeyValue(key, self.keys[key], 1, 1) if key in self.keys else None


def asked(declared: Declared) -> Request:
    """A request with the key k."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http", "method": declared.method, "path": declared.path, "query_string": b"",
        "headers": [(KEY_HEADER.lower().encode(), b"k")],
    }  # fmt: skip
    request = Request(scope, receive)
    take(request, declared)
    return request


ACTS = Declared("POST", "/v1/button", acts=True)
WRITES = Declared("DELETE", "/v1/workloads/web")


async def test_nothing_is_done_without_its_note() -> None:
    """Each time that it is to be noted another try has it noted, and has taken that back when it is looked at."""
    done: list[str] = []

    async def press(request: Request) -> Encoded:
        done.append("pressed")
        return Encoded({})

    class Flickering(Store):
        async def transact(self, transaction: Transaction) -> TransactionResult:
            return TransactionResult(False, 1)

    with pytest.raises(Begun):
        await once.answered(cast(View, Flickering()), ACTS, press, asked(ACTS))
    assert done == []

    class OnceFlickering(Store):
        flickered = False

        async def transact(self, transaction: Transaction) -> TransactionResult:
            if self.flickered:
                return await super().transact(transaction)
            self.flickered = True
            return TransactionResult(False, 1)

    store = OnceFlickering()
    assert (await once.answered(cast(View, store), ACTS, press, asked(ACTS))).status_code == 200
    assert (done, len(store.keys)) == (["pressed"], 1)


async def test_a_try_that_is_refused_for_what_another_did_is_answered_as_that() -> None:
    """The first was done after the second had looked whether it was, and before that looked at the workload."""
    store = Store()

    async def remove(request: Request) -> Encoded:
        gone = Transaction((), (Delete("workloads/web"),))
        answer = {"workload": "web", "changed": True}
        await once.transact(cast(View, store), gone, answer)
        return Encoded(answer)

    async def finds_nothing(request: Request) -> Encoded:
        token = once._present.set(None)
        try:
            await once.answered(cast(View, store), WRITES, remove, asked(WRITES))
        finally:
            once._present.reset(token)
        raise NotFound("There is no workload web.")

    answer = await once.answered(cast(View, store), WRITES, finds_nothing, asked(WRITES))
    assert (answer.status_code, json.loads(bytes(answer.body))) == (200, {"workload": "web", "changed": True})

    async def refused(request: Request) -> Encoded:
        raise NotFound("There is no workload web.")

    with pytest.raises(NotFound):
        await once.answered(cast(View, Store()), WRITES, refused, asked(WRITES))
