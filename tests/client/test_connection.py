"""The client against whatever may listen at a socket: an agent, none, something else, one that breaks off."""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlive.client import Client, connection, find_socket
from outlive.client.connection import Answered
from outlive.errors import ClusterUnreachable, RefusedForSafety, UsageInvalid

PROBLEM = RefusedForSafety("Host a may still run it.", cause="its claim stands", remedy="wait", id="claim.not-ended")


@contextmanager
def answering(path: Path, answer: bytes | Callable[[bytes], bytes]) -> Iterator[list[bytes]]:
    """Something at a socket that answers one request after the other with these bytes, and hangs up."""
    heard: list[bytes] = []
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    listening.listen()

    def serve() -> None:
        while True:
            try:
                talk, _ = listening.accept()
            except OSError:
                return
            with talk:
                talk.settimeout(60)
                heard.append(whole_request(talk))
                talk.sendall(answer(heard[-1]) if callable(answer) else answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(60)
        path.unlink()


def whole_request(talk: socket.socket) -> bytes:
    """Head and body of one request, however many pieces they come in; less when the other side hangs up."""
    request = b""
    while chunk := talk.recv(65536):
        request += chunk
        head, ended, body = request.partition(b"\r\n\r\n")
        length = next((line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b"0")
        if ended and len(body) >= int(length):
            break
    return request


def http(body: bytes, status: str = "200 OK", kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


def test_an_answer_is_decoded(tmp_path: Path) -> None:
    with answering(tmp_path / "s", http(b'{"host": "a"}')) as heard:
        assert Client(str(tmp_path / "s")).get("/healthz") == {"host": "a"}
    assert heard[0].startswith(b"GET /healthz HTTP/1.1\r\n")


def test_documents_are_sent_as_json_and_files_as_they_are(tmp_path: Path) -> None:
    with answering(tmp_path / "s", http(b"{}")) as heard:
        client = Client(str(tmp_path / "s"))
        client.put("/x", {"desired": "running"})
        client.put("/x", b'name = "web"')
        client.post("/x", {"kind": "migrate"})
        client.delete("/x")
    assert [each.split(b" ")[0] for each in heard] == [b"PUT", b"PUT", b"POST", b"DELETE"]
    assert heard[0].endswith(b'{"desired": "running"}')
    assert heard[1].endswith(b'name = "web"')


def test_a_problem_comes_back_as_the_error_that_it_tells(tmp_path: Path) -> None:
    body = json.dumps(PROBLEM.problem()).encode()
    answer = http(body, "409 Conflict", "application/problem+json")
    with answering(tmp_path / "s", answer), pytest.raises(Answered) as caught:
        Client(str(tmp_path / "s")).delete("/v1/workloads/web")
    error = caught.value
    assert (error.sentence, error.cause, error.remedy) == (PROBLEM.sentence, PROBLEM.cause, PROBLEM.remedy)
    assert (error.id, error.exit_code, error.problem()) == (PROBLEM.id, 3, PROBLEM.problem())


@given(body=st.binary(max_size=200) | st.builds(lambda value: json.dumps(value).encode(), st.integers() | st.text()))
def test_a_refusal_in_any_form_is_still_an_error_with_a_sentence(body: bytes) -> None:
    path = Path(f"/tmp/outlive-test-{os.getpid()}.sock")
    with answering(path, http(body, "500 Internal Server Error")), pytest.raises(Answered) as caught:
        Client(str(path)).get("/")
    assert caught.value.sentence
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    "answer",
    [b"", b"SSH-2.0-OpenSSH\r\n", http(b"<html>"), http(b"{}").replace(b"Length: 2", b"Length: 9"), b"\0" * 100],
    ids=["hung-up", "not-http", "not-json", "broken-off", "zeros"],
)
def test_what_is_no_agent_is_told_as_no_agent(tmp_path: Path, answer: bytes) -> None:
    with answering(tmp_path / "s", answer), pytest.raises(ClusterUnreachable) as caught:
        Client(str(tmp_path / "s")).get("/healthz")
    assert caught.value.sentence == f"No agent answers at {tmp_path / 's'}."
    assert "outlive up" in caught.value.remedy


def test_nobody_at_the_socket_is_told_with_the_way_on(tmp_path: Path) -> None:
    with pytest.raises(ClusterUnreachable) as caught:
        Client(str(tmp_path / "nobody")).get("/healthz")
    assert caught.value.exit_code == 4
    assert caught.value.cause == "No such file or directory"


def test_a_socket_that_a_user_may_not_use_asks_for_sudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(connection._UnixConnection, "connect", refuse)
    with pytest.raises(ClusterUnreachable) as caught:
        Client(str(tmp_path / "s")).get("/healthz")
    assert caught.value.remedy == "run it with sudo"


def test_an_agent_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REQUEST_S", 0.2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        with pytest.raises(ClusterUnreachable):
            Client(str(tmp_path / "s")).get("/healthz")


def test_lines_come_one_by_one_and_an_end_is_an_end(tmp_path: Path) -> None:
    with answering(tmp_path / "s", http(b"one\ntwo\nthree")) as heard:
        lines = Client(str(tmp_path / "s")).lines("/v1/events", {"Last-Event-ID": "7:events/x"})
        assert list(lines) == [b"one\n", b"two\n", b"three"]
    assert b"Last-Event-ID: 7:events/x\r\n" in heard[0]


def test_lines_that_are_refused_raise_the_problem(tmp_path: Path) -> None:
    body = json.dumps(PROBLEM.problem()).encode()
    with answering(tmp_path / "s", http(body, "404 Not Found")), pytest.raises(Answered) as caught:
        list(Client(str(tmp_path / "s")).lines("/v1/workloads/web/logs"))
    assert caught.value.id == PROBLEM.id


def test_the_socket_is_the_one_given_then_the_environments_then_the_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OUTLIVE_SOCKET", raising=False)
    assert find_socket() == "/run/outlive/api.sock"
    monkeypatch.setenv("OUTLIVE_SOCKET", "/x/api.sock")
    assert find_socket() == "/x/api.sock"
    assert find_socket("/y/api.sock") == "/y/api.sock"


def keys(heard: list[bytes]) -> set[str]:
    lines = [line for each in heard for line in each.decode().split("\r\n")]
    return {line for line in lines if line.startswith("Idempotency-Key: ")}


def test_a_wish_whose_answer_was_lost_is_asked_for_again_with_its_key(tmp_path: Path) -> None:
    answers = iter([b"", b"HTTP/1.1 200 OK\r\nContent-Le", http(b'{"operation": {}}')])
    with answering(tmp_path / "s", lambda _: next(answers)) as heard:
        assert Client(str(tmp_path / "s")).post("/v1/operations", {"kind": "migrate"}) == {"operation": {}}
    assert (len(heard), len(keys(heard)), len({each.partition(b"\r\n\r\n")[2] for each in heard})) == (3, 1, 1)


@pytest.mark.parametrize("id", ["store.uncertain", "idempotency.begun"])
def test_a_wish_whose_outcome_the_agent_does_not_know_is_asked_for_again(tmp_path: Path, id: str) -> None:
    unsure = http(json.dumps({"id": id, "title": "Who knows."}).encode(), "503 Service Unavailable")
    answers = iter([unsure, http(b"{}")])
    with answering(tmp_path / "s", lambda _: next(answers)) as heard:
        assert Client(str(tmp_path / "s")).delete("/v1/workloads/web", if_revision=17) == {}
    assert (len(heard), len(keys(heard))) == (2, 1)
    assert all(b'If-Match: "17"\r\n' in each for each in heard)


def test_a_wish_that_surely_was_not_done_is_not_repeated(tmp_path: Path) -> None:
    body = json.dumps({"id": "store.unavailable", "title": "The store is away."}).encode()
    with answering(tmp_path / "s", http(body, "503 Service Unavailable")) as heard, pytest.raises(Answered):
        Client(str(tmp_path / "s")).put("/v1/workloads/web/desired", {"desired": "running"})
    assert len(heard) == 1


def test_a_wish_of_which_nothing_is_heard_any_more_is_told_as_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "AGAIN_S", 0.5)
    with answering(tmp_path / "s", b""), pytest.raises(ClusterUnreachable, match="not known whether") as caught:
        Client(str(tmp_path / "s")).delete("/v1/workloads/web")
    assert caught.value.id == "outcome.unknown"


@pytest.mark.parametrize("problem", [("store.unavailable", 4, "The store is away."), ("not-found", 1, "No such.")])
def test_a_refusal_of_a_later_try_says_nothing_about_one_that_may_have_been_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: tuple[str, int, str]
) -> None:
    monkeypatch.setattr(connection, "AGAIN_S", 0.5)
    id, exit_code, title = problem
    body = json.dumps({"id": id, "title": title, "exit_code": exit_code}).encode()
    answers = chain([b""], repeat(http(body, "503 Service Unavailable")))
    with answering(tmp_path / "s", lambda _: next(answers)) as heard, pytest.raises(ClusterUnreachable) as caught:
        Client(str(tmp_path / "s")).delete("/v1/workloads/web")
    assert (caught.value.id, caught.value.exit_code) == ("outcome.unknown", 4)
    assert title in caught.value.cause
    [key] = keys(heard)
    assert f"OUTLIVE_REQUEST_KEY={key.removeprefix('Idempotency-Key: ')}" in caught.value.remedy


def test_a_command_that_is_run_again_with_its_key_makes_its_wishes_with_the_same_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTLIVE_REQUEST_KEY", "17")
    with answering(tmp_path / "s", http(b"{}")) as heard:
        client = Client(str(tmp_path / "s"))
        client.delete("/v1/workloads/web")
        client.delete("/v1/workloads/db")
    assert [keys([each]) for each in heard] == [{"Idempotency-Key: 17"}, {"Idempotency-Key: 17.2"}]


@pytest.mark.parametrize("key", ["a\nb", "a b", "clé", "ключ", "k" * 191])
def test_what_cannot_be_a_key_is_refused_before_anything_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OUTLIVE_REQUEST_KEY", key)
    with answering(tmp_path / "s", http(b"{}")) as heard:
        client = Client(str(tmp_path / "s"))
        with pytest.raises(UsageInvalid, match="OUTLIVE_REQUEST_KEY") as caught:
            client.delete("/v1/workloads/web")
        assert caught.value.remedy
        assert client.get("/v1/workloads") == {}
    assert len(heard) == 1


def test_an_upload_that_nobody_answered_is_told_as_unknown_and_one_that_nobody_got_is_not(tmp_path: Path) -> None:
    unsure = http(json.dumps({"id": "store.uncertain", "title": "Who knows."}).encode(), "503 Service Unavailable")
    for answer in (b"", b"HTTP/1.1 200 OK\r\nContent-Le", unsure):
        with answering(tmp_path / "s", answer), pytest.raises(ClusterUnreachable, match="not known whether") as caught:
            Client(str(tmp_path / "s")).upload("/v1/packages", [b"x" * 1000])
        assert (caught.value.id, caught.value.exit_code) == ("outcome.unknown", 4)
        assert "again" in caught.value.remedy
    with pytest.raises(ClusterUnreachable, match="No agent answers"):
        Client(str(tmp_path / "s")).upload("/v1/packages", [b"x"])
    refused = http(json.dumps(PROBLEM.problem()).encode(), "409 Conflict")
    with answering(tmp_path / "s", refused), pytest.raises(Answered):
        Client(str(tmp_path / "s")).upload("/v1/packages", [b"x"])


def test_another_agent_is_asked_when_one_is_gone(tmp_path: Path) -> None:
    with answering(tmp_path / "b", http(b'{"host": "b"}')) as heard:
        client = Client(str(tmp_path / "a"), [str(tmp_path / "a"), str(tmp_path / "b")])
        assert client.post("/v1/operations", {})["host"] == "b"
        assert (client.path, client.get("/healthz")["host"]) == (str(tmp_path / "b"), "b")
    assert len(heard) == 2
    with pytest.raises(ClusterUnreachable, match="No agent answers"):
        client.get("/healthz")


def test_a_list_is_read_page_after_page(tmp_path: Path) -> None:
    pages = iter(
        [http(b'{"x": [1, 2], "next": "c1"}'), http(b'{"x": [3], "next": "c2"}'), http(b'{"x": [], "next": null}')]
    )
    with answering(tmp_path / "s", lambda _: next(pages)) as heard:
        assert list(Client(str(tmp_path / "s")).pages("/v1/x?limit=2", "x")) == [1, 2, 3]
    assert [each.split(b" ")[1] for each in heard] == [
        b"/v1/x?limit=2",
        b"/v1/x?limit=2&cursor=c1",
        b"/v1/x?limit=2&cursor=c2",
    ]
