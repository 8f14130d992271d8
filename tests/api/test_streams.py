"""Streams: events that can be taken up again with nothing missed, and logs that go on."""

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from outlive.client.connection import Answered

from ..one_host import OneHost, until

Event = tuple[str, dict[str, Any]]


@contextmanager
def stream(one_host: OneHost, after: str | None = None, query: str = "") -> Iterator[Iterator[Event]]:
    """The event stream as pairs of a mark and an event."""
    headers = {"Last-Event-ID": after} if after else {}
    lines = one_host.client.lines(f"/v1/events/stream{query}", headers)

    def events() -> Iterator[Event]:
        mark = ""
        for raw in lines:
            word, _, rest = raw.decode().rstrip("\n").partition(": ")
            if word == "id":
                mark = rest
            elif word == "data":
                yield mark, json.loads(rest)

    try:
        yield events()
    finally:
        lines.close()  # type: ignore[attr-defined]


def until_event(events: Iterator[Event], kind: str, workload: str) -> list[Event]:
    found = []
    for each in events:
        found.append(each)
        if (each[1]["kind"], each[1]["workload"]) == (kind, workload):
            return found
    raise AssertionError("the stream ended")


def test_the_stream_begins_with_all_that_is_kept_and_goes_on(one_host: OneHost) -> None:
    one_host.apply("stream-a")
    with stream(one_host) as events:
        past = until_event(events, "workload.running", "stream-a")
        assert past[0][1]["kind"] == "agent.started"
        one_host.forget("stream-a")
        until_event(events, "workload.removed", "stream-a")


def test_whoever_comes_back_with_a_mark_misses_nothing_and_reads_nothing_twice(one_host: OneHost) -> None:
    read: list[Event] = []
    with stream(one_host) as events:
        one_host.apply("stream-b")
        read += until_event(events, "workload.prepared", "stream-b")
    one_host.forget("stream-b")
    for kind in ("workload.stopping", "workload.stopped", "workload.removed"):
        with stream(one_host, read[-1][0]) as events:
            read += until_event(events, kind, "stream-b")
    with stream(one_host) as events:
        whole = until_event(events, "workload.removed", "stream-b")
    assert read == whole
    assert len({mark for mark, _ in read}) == len(read)


def test_a_reader_may_begin_with_the_last_few(one_host: OneHost) -> None:
    one_host.apply("stream-c")
    one_host.forget("stream-c")
    with stream(one_host) as events:
        whole = until_event(events, "workload.removed", "stream-c")
    with stream(one_host, query="?last=3") as events:
        assert list(itertools.islice(events, 3))[-1] == whole[-1]


@pytest.mark.parametrize("mark", ["x", "-1:events/a", "9" * 40, "1.5:a", "Ⅷ:a"])
def test_a_mark_that_no_stream_gave_is_refused(one_host: OneHost, mark: str) -> None:
    from urllib.parse import quote

    with pytest.raises(Answered) as caught:
        next(one_host.client.lines(f"/v1/events/stream?after={quote(mark)}"))
    assert caught.value.told["id"] == "usage.invalid"


def test_logs_go_on_with_the_workload_through_its_restarts(one_host: OneHost) -> None:
    one_host.apply("talker", "/bin/sh", "-c", "echo begun; exec sleep 3600")
    lines = one_host.client.lines("/v1/workloads/talker/logs?follow=1")
    assert json.loads(next(lines))["text"] == "begun"
    one_host.client.put("/v1/workloads/talker/desired", {"desired": "stopped"})
    until(lambda: one_host.outlook("talker")["host"] is None, "it is stopped")
    one_host.client.put("/v1/workloads/talker/desired", {"desired": "running"})
    assert json.loads(next(lines))["text"] == "begun"
    lines.close()  # type: ignore[attr-defined]
    one_host.forget("talker")


def test_many_readers_that_go_leave_the_agent_as_it_was(one_host: OneHost) -> None:
    one_host.apply("read")
    for _ in range(20):
        lines = one_host.client.lines("/v1/workloads/read/logs?follow=1&lines=0")
        with stream(one_host) as events:
            next(events)
        lines.close()  # type: ignore[attr-defined]
    assert one_host.client.get("/healthz")["host"] == "one"
    one_host.forget("read")
