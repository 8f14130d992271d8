"""What is made of a gateway's answers: refusals mean just what they say, and garbage is an error in a sentence."""

import asyncio
import base64
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from outlive.cluster.transaction import Delete, KeyValue, Put, Transaction, absent
from outlive.config.store_address import EtcdAddress
from outlive.store import etcd_messages as say
from outlive.store.base import (
    Compacted,
    HistoryKept,
    LeaseGone,
    RequestRefused,
    StoreCorrupt,
    StoreDenied,
    StoreError,
    StoreForeign,
    StoreFull,
    StoreReplaced,
    StoreTimeout,
    StoreUnavailable,
    StoreUncertain,
    WatchBatch,
)
from outlive.store.etcd import MARK, EtcdStore
from outlive.store.etcd_compaction import Compaction
from outlive.store.etcd_login import Login
from outlive.store.etcd_watch import Assembly

from .etcd_pretended import HEADER, Answer, bad, good, pretended, streaming, whole

LIMIT_S = 60.0

PUT = Transaction((), (Put("key", b"value"),))


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


MARKED = good(kvs=[{"key": b64(b"/p"), "value": b64(MARK), "mod_revision": "2", "create_revision": "2"}])


def answering(path: str, *answers: bytes) -> Answer:
    """A gateway of a store of ours that answers this path so, the last answer again and again; others well."""
    left = list(answers)

    async def answer(asked: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        opening = base64.b64decode(body.get("key", "")) == b"/p"
        if asked != path or (path == "/v3/kv/range" and opening):
            writer.write(MARKED if asked == "/v3/kv/range" else good())
        else:
            writer.write(left.pop(0) if len(left) > 1 else left[0])

    return answer


async def asked(path: str, *answers: bytes, timeout_s: float = LIMIT_S) -> Any:
    """What a store says when the gateway answers so to what goes to that path."""
    async with pretended(answering(path, *answers)) as endpoint:
        store = await EtcdStore.open(EtcdAddress((endpoint,), "/p"), timeout_s=60)
        try:
            match path:
                case "/v3/kv/txn":
                    return await store.transact(PUT, timeout_s=timeout_s)
                case "/v3/kv/range":
                    return await store.get("key", timeout_s=timeout_s)
                case "/v3/lease/grant":
                    return await store.grant_lease(5, timeout_s=timeout_s)
                case "/v3/lease/keepalive":
                    return await store.keep_alive(5, timeout_s=timeout_s)
                case "/v3/lease/revoke":
                    return await store.revoke(5, timeout_s=timeout_s)
                case "/v3/kv/compaction":
                    return await store.compact(3, timeout_s=timeout_s)
                case "/v3/watch":
                    async with contextlib.aclosing(store.watch("", 5, silence_s=timeout_s)) as batches:
                        return [batch async for batch in batches if batch.changes]
        finally:
            await store.close()


PATHS = (
    "/v3/kv/txn", "/v3/kv/range", "/v3/lease/grant", "/v3/lease/keepalive", "/v3/lease/revoke", "/v3/kv/compaction",
    "/v3/watch",
)  # fmt: skip

REFUSALS = [
    pytest.param(bad(503, "etcdserver: no leader", 14), StoreTimeout, id="no leader"),
    pytest.param(bad(429, "etcdserver: too many requests", 8), StoreTimeout, id="too many requests"),
    pytest.param(bad(503, "etcdserver: request timed out", 14), StoreUncertain, id="timed out"),
    pytest.param(
        bad(503, "etcdserver: request timed out, waiting for the applied index", 14), StoreUncertain, id="apply"
    ),
    pytest.param(bad(503, "etcdserver: leader changed", 14), StoreUncertain, id="leader changed"),
    pytest.param(bad(504, "context deadline exceeded", 4), StoreUncertain, id="deadline"),
    pytest.param(bad(500, "something new", 13), StoreUncertain, id="unknown"),
    pytest.param(bad(429, "etcdserver: mvcc: database space exceeded", 8), StoreUncertain, id="no room"),
    pytest.param(bad(404, "etcdserver: requested lease not found", 5), LeaseGone, id="lease"),
    pytest.param(bad(400, "etcdserver: request is too large", 3), RequestRefused, id="too large"),
    pytest.param(bad(403, "etcdserver: permission denied", 7), StoreDenied, id="denied"),
    pytest.param(bad(400, "etcdserver: user name is empty", 3), StoreDenied, id="nobody"),
    pytest.param(bad(401, "etcdserver: invalid auth token", 16), StoreDenied, id="token"),
    pytest.param(bad(500, "etcdserver: corrupt cluster", 15), StoreCorrupt, id="corrupt"),
    pytest.param(
        whole(404, b'{"code": 12, "message": "unknown service", "details": []}'), StoreUnavailable, id="no such"
    ),
    pytest.param(whole(404, b"404 page not found"), StoreUncertain, id="another server"),
    pytest.param(whole(200, b"<html>"), StoreUncertain, id="a web page"),
    pytest.param(whole(200, b"{}"), StoreUncertain, id="nothing"),
    pytest.param(b"SSH-2.0-OpenSSH\r\n", StoreUncertain, id="no HTTP"),
]


@pytest.mark.parametrize(("answer", "error"), REFUSALS)
async def test_a_transaction_refused_so_is_surely_not_done_or_uncertain(answer: bytes, error: type[StoreError]) -> None:
    tried_on = error is StoreTimeout or answer.startswith(b"SSH")
    with pytest.raises(error) as raised:
        await asked("/v3/kv/txn", answer, timeout_s=1.0 if tried_on else LIMIT_S)
    assert isinstance(raised.value, StoreUncertain) == (error is StoreUncertain)


@pytest.mark.parametrize(("answer", "error"), REFUSALS)
async def test_a_read_is_never_uncertain(answer: bytes, error: type[StoreError]) -> None:
    with pytest.raises(StoreError) as raised:
        await asked("/v3/kv/range", answer, timeout_s=0.1)
    assert not isinstance(raised.value, StoreUncertain) or (error is StoreUncertain and "full" in str(raised.value))


async def test_a_store_that_said_it_is_full_is_asked_before_it_is_written_to_again() -> None:
    sent: list[str] = []

    async def answer(path: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        sent.append(path)
        if path == "/v3/kv/txn":
            writer.write(bad(429, "etcdserver: mvcc: database space exceeded", 8))
        elif path == "/v3/maintenance/alarm":
            writer.write(good(alarms=[{"memberID": "1", "alarm": "NOSPACE"}]))
        else:
            writer.write(MARKED)

    async with pretended(answer) as endpoint:
        store = await EtcdStore.open(EtcdAddress((endpoint,), "/p"), timeout_s=60)
        with pytest.raises(StoreUncertain):
            await store.transact(PUT, timeout_s=LIMIT_S)
        sent.clear()
        with pytest.raises(StoreFull):
            await store.transact(PUT, timeout_s=LIMIT_S)
        assert sent == ["/v3/maintenance/alarm"]
        await store.close()


async def test_another_clusters_answer_to_a_read_tells_that_the_store_was_replaced() -> None:
    other = {**HEADER, "cluster_id": "8"}
    with pytest.raises(StoreReplaced):
        await asked("/v3/kv/range", whole(200, json.dumps({"header": other}).encode()))
    with pytest.raises(StoreUncertain):
        await asked("/v3/kv/txn", whole(200, json.dumps({"header": other, "succeeded": True}).encode()))


async def test_a_store_that_went_back_in_time_was_replaced() -> None:
    older = {**HEADER, "revision": "4"}
    with pytest.raises(StoreReplaced):
        await asked("/v3/kv/range", whole(200, json.dumps({"header": older}).encode()))


@pytest.mark.parametrize("there", [b"outlive 99", b'{"format": "outlive store", "version": 2}', b""])
async def test_what_is_not_ours_is_left_alone(there: bytes) -> None:
    async def answer(path: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        assert path == "/v3/kv/range"
        writer.write(good(kvs=[{"key": b64(b"/p"), "value": b64(there), "mod_revision": "2", "create_revision": "2"}]))

    async with pretended(answer) as endpoint:
        with pytest.raises(StoreForeign):
            await EtcdStore.open(EtcdAddress((endpoint,), "/p"), timeout_s=60)


async def test_a_member_without_a_leader_is_passed_over_and_the_write_done_once_elsewhere() -> None:
    done: list[dict[str, Any]] = []

    async def lost(path: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(bad(503, "etcdserver: no leader", 14))

    async def well(path: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        done.extend([body] if path == "/v3/kv/txn" else [])
        writer.write(MARKED if path == "/v3/kv/range" else good(succeeded=True))

    async with pretended(lost) as first, pretended(well) as second:
        store = await EtcdStore.open(EtcdAddress((first, second), "/p"), timeout_s=60)
        for _ in range(4):
            assert (await store.transact(PUT, timeout_s=60)).succeeded
        await store.close()
    assert len(done) == 4


async def test_a_write_that_was_sent_is_not_sent_again() -> None:
    sent = 0

    async def broken(path: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        if path == "/v3/kv/range":
            writer.write(MARKED)
        else:
            sent += 1
            writer.transport.abort()

    async with pretended(broken) as first, pretended(broken) as second:
        store = await EtcdStore.open(EtcdAddress((first, second), "/p"), timeout_s=60)
        with pytest.raises(StoreUncertain):
            await store.transact(PUT, timeout_s=60)
        await store.close()
    assert sent == 1


async def opened(first: Answer, second: Answer, stack: contextlib.AsyncExitStack, login: Login | None = None) -> Any:
    """A store with two gateways of which it asks the first first."""
    ends = [await stack.enter_async_context(pretended(each)) for each in (first, second)]
    store = await EtcdStore.open(EtcdAddress(tuple(ends), "/p"), timeout_s=10, login=login)
    stack.push_async_callback(store.close)
    store.gateway.turn(away_from=ends[1])
    return store


def mute_at(path: str, then: Callable[[], None] = lambda: None) -> Answer:
    """A gateway of a store of ours that breaks off where it is asked for that path."""

    async def answer(asked: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if asked == path:
            then()
            writer.transport.abort()
        else:
            writer.write(MARKED if asked == "/v3/kv/range" else good())

    return answer


LATER = [
    pytest.param(bad(403, "etcdserver: permission denied", 7), id="denied"),
    pytest.param(bad(401, "etcdserver: invalid auth token", 16), id="token"),
    pytest.param(bad(503, "etcdserver: no leader", 14), id="no leader"),
    pytest.param(whole(404, b'{"code": 12, "message": "unknown service"}'), id="no such"),
]


@pytest.mark.parametrize("later", LATER)
async def test_what_another_member_says_of_itself_does_not_undo_what_the_first_may_have_done(later: bytes) -> None:
    """A lease that may have been granted, a revocation and a keep-alive that may count."""
    async with contextlib.AsyncExitStack() as stack:
        path = "/v3/lease/revoke"
        store = await opened(mute_at(path), answering(path, later), stack)
        with pytest.raises(StoreUncertain):
            await store.revoke(5, timeout_s=0.3)
    async with contextlib.AsyncExitStack() as stack:
        path = "/v3/lease/keepalive"
        store = await opened(mute_at(path), answering(path, later), stack)
        with pytest.raises(StoreUncertain):
            await store.keep_alive(5, timeout_s=0.6)


async def test_a_store_that_is_closed_while_it_tries_again_does_not_know_what_was_done() -> None:
    async with contextlib.AsyncExitStack() as stack:
        closing: list[asyncio.Task[None]] = []

        def close() -> None:
            closing.append(asyncio.ensure_future(store.close()))

        path = "/v3/lease/revoke"
        store = await opened(mute_at(path, close), answering(path, bad(503, "etcdserver: no leader", 14)), stack)
        with pytest.raises(StoreUncertain):
            await store.revoke(5, timeout_s=5)
        await asyncio.gather(*closing)


async def test_a_keep_alive_across_a_change_of_leaders_is_uncertain_when_nobody_answers_then() -> None:
    """It was taken, and the term changed meanwhile: it may count, or may not."""
    taken = False

    async def answer(path: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        changed = {**HEADER, "raft_term": "3"}
        mark = {"key": b64(b"/p"), "value": b64(MARK), "mod_revision": "2", "create_revision": "2"}
        if path == "/v3/lease/keepalive":
            if taken:
                writer.write(bad(503, "etcdserver: no leader", 14))
                return
            taken = True
            writer.write(streaming({"ID": "5", "TTL": "5"}))
            writer.write_eof()
        else:
            writer.write(whole(200, json.dumps({"header": changed if taken else HEADER, "kvs": [mark]}).encode()))

    async with pretended(answer) as endpoint:
        store = await EtcdStore.open(EtcdAddress((endpoint,), "/p"), timeout_s=10)
        with pytest.raises(StoreUncertain):
            await store.keep_alive(5, timeout_s=0.6)
        await store.close()


SECRET, TOKEN = "very-secret-word", "tokenthatnobodymaysee"


@pytest.fixture
def login(tmp_path: Path) -> Login:
    (tmp_path / "password").write_text(SECRET + "\n")
    return Login("outlive", tmp_path / "password")


async def refused(login: Login, answer: bytes | None, timeout_s: float = 5) -> str:
    """What is said of a store at which the login is answered so, or not at all."""

    async def gateway(path: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if path != "/v3/auth/authenticate":
            writer.write(bad(401, "etcdserver: invalid auth token", 16))
        elif answer is not None:
            writer.write(answer)

    async with asyncio.timeout(30), pretended(gateway) as endpoint:
        with pytest.raises(StoreUnavailable) as raised:
            await EtcdStore.open(EtcdAddress((endpoint,), "/p"), timeout_s=timeout_s, login=login)
    chain: list[str] = []
    error: BaseException | None = raised.value
    while error is not None:
        chain += [type(error).__name__, str(error), getattr(error, "remedy", "")]
        error = error.__cause__
    return " ".join(chain)


@pytest.mark.parametrize("code", [401, 400])
async def test_a_login_that_is_itself_asked_for_a_token_is_denied_and_not_waited_for(login: Login, code: int) -> None:
    assert "StoreDenied" in await refused(login, bad(code, "etcdserver: invalid auth token", 16))


async def test_a_login_that_is_not_answered_lasts_no_longer_than_the_call(login: Login) -> None:
    assert "StoreTimeout" in await refused(login, None, timeout_s=0.3)


@pytest.mark.parametrize(
    "answer",
    [
        whole(200, b'{"token": ["' + TOKEN.encode() + b'"]}'),
        whole(200, b'{"header": 7, "token": "' + TOKEN.encode() + b'"}'),
        whole(200, TOKEN.encode()),
        whole(500, b'"' + TOKEN.encode()),
        bad(400, f"cannot read password: {SECRET}", 3),
        bad(500, f"what is {SECRET}", 13),
        bad(401, f"who is {SECRET}", 16),
    ],
)
async def test_neither_password_nor_token_is_told_whatever_a_login_is_answered(login: Login, answer: bytes) -> None:
    said = await refused(login, answer, timeout_s=0.2)
    assert TOKEN not in said
    assert SECRET not in said


async def test_calls_that_need_a_token_together_share_one_login_and_each_its_own_time(login: Login) -> None:
    logins, answered = 0, asyncio.Event()

    async def gateway(path: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        nonlocal logins
        if path == "/v3/auth/authenticate":
            logins += 1
            if logins > 1:
                await answered.wait()
            writer.write(good(token=f"{TOKEN}{logins}"))
        elif path == "/v3/kv/range" and base64.b64decode(body["key"]) != b"/p" and not answered.is_set():
            writer.write(bad(401, "etcdserver: invalid auth token", 16))
        else:
            writer.write(MARKED)

    async with asyncio.timeout(30), pretended(gateway) as endpoint:
        store = await EtcdStore.open(EtcdAddress((endpoint,), "/p"), timeout_s=10, login=login)
        patient = [asyncio.ensure_future(store.get("key", timeout_s=20)) for _ in range(3)]
        while logins < 2:  # noqa: ASYNC110 - a test waits for what it pretends
            await asyncio.sleep(0.01)
        with pytest.raises(StoreTimeout):
            await store.get("key", timeout_s=0.2)
        answered.set()
        await asyncio.gather(*patient)
        await store.close()
    assert logins == 2


def counting(everyone: bytes, ours: int) -> tuple[Answer, list[int]]:
    """A gateway that counts keys so; what it is asked to forget."""
    forgotten: list[int] = []

    async def answer(path: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if path == "/v3/kv/compaction":
            forgotten.append(int(body["revision"]))
            writer.write(good())
        elif body.get("count_only") and base64.b64decode(body["key"]) == b"\0":
            assert base64.b64decode(body["range_end"]) == b"\0"
            writer.write(everyone)
        elif body.get("count_only"):
            assert body["revision"] == HEADER["revision"]
            writer.write(good(count=str(ours if "range_end" in body else 1)))
        else:
            writer.write(MARKED)

    return answer, forgotten


@pytest.mark.parametrize(
    ("everyone", "policy", "kept"),
    [
        (good(count="8"), Compaction.ALONE, ""),
        (good(count="9"), Compaction.ALONE, "1 of its keys are other programs'"),
        (good(count="9"), Compaction.ALWAYS, ""),
        (bad(403, "etcdserver: permission denied", 7), Compaction.ALONE, "may not look"),
        (bad(403, "etcdserver: permission denied", 7), Compaction.ALWAYS, ""),
    ],
)
async def test_etcd_is_made_to_forget_only_what_nobody_else_may_need(
    everyone: bytes, policy: Compaction, kept: str
) -> None:
    answer, forgotten = counting(everyone, ours=7)
    async with pretended(answer) as endpoint:
        store = await EtcdStore.open(EtcdAddress((endpoint,), "/p"), timeout_s=10, compaction=policy)
        if kept:
            with pytest.raises(HistoryKept, match=kept):
                await store.compact(4, timeout_s=5)
        else:
            await store.compact(4, timeout_s=5)
        await store.close()
    assert forgotten == ([] if kept else [4])


async def test_what_is_left_to_etcd_is_not_asked_for() -> None:
    answer, forgotten = counting(good(count="8"), ours=7)
    async with pretended(answer) as endpoint:
        store = await EtcdStore.open(EtcdAddress((endpoint,), "/p"), timeout_s=10, compaction=Compaction.NEVER)
        await store.compact(4, timeout_s=5)
        await store.close()
    assert forgotten == []


def test_a_transaction_that_writes_nothing_reads_something_so_that_it_is_not_answered_from_the_past() -> None:
    asked_for = json.loads(say.transaction_request(Transaction((absent("key"),), ()), b"/p/"))
    assert [list(each) for each in (*asked_for["success"], *asked_for["failure"])] == [["request_range"]] * 2
    assert "serializable" not in json.dumps(asked_for)


# Watches.


def event(key: str, revision: int, value: bytes = b"", type: str | None = None) -> dict[str, Any]:
    kv = {"key": b64(b"/p/" + key.encode()), "value": b64(value), "mod_revision": str(revision), "create_revision": "3"}
    return {"kv": kv, **({"type": type} if type else {})}


def put(key: str, revision: int, value: bytes = b"") -> KeyValue:
    return KeyValue(key, value, 3, revision)


def assembled(prefix: str, from_revision: int, *messages: dict[str, Any]) -> list[WatchBatch]:
    assembly = Assembly(b"/p/", prefix, from_revision)
    batches = []
    for message in messages:
        batches += assembly.take(say.read(json.dumps({"header": HEADER, **message}).encode(), say.Watched))
    return batches


def test_changes_of_one_revision_are_one_batch_however_they_are_cut_to_pieces() -> None:
    pieces = (
        {"fragment": True, "events": [event("a", 6), event("b", 7)]},
        {"fragment": True, "events": [event("c", 7, type="DELETE")]},
        {"events": [event("d", 7, b"1"), event("a", 8)]},
    )
    assert assembled("", 5, *pieces) == [
        WatchBatch(6, (put("a", 6),)),
        WatchBatch(7, (put("b", 7), Delete("c"), put("d", 7, b"1"))),
        WatchBatch(8, (put("a", 8),)),
    ]


def test_what_was_told_is_not_told_again_and_what_is_not_asked_for_is_left_out() -> None:
    messages = (
        {"events": [event("a", 4), event("a", 5), event("b", 5)]},
        {"events": [event("\x01progress", 6)]},
        {"events": [event("a", 5), event("b", 7)]},
        {"events": [event("a", 8, type="DELETE")]},
    )
    assert assembled("a", 5, *messages) == [WatchBatch(5, (put("a", 5),)), WatchBatch(8, (Delete("a"),))]


@given(
    st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True), min_size=1, max_size=8),
    st.data(),
)
def test_any_cut_of_a_history_into_messages_gives_the_same_batches(
    revisions: list[list[str]], data: st.DataObject
) -> None:
    events = [event(key, 5 + number) for number, keys in enumerate(revisions) for key in keys]
    messages = []
    while events:
        count = data.draw(st.integers(1, len(events)))
        piece, events = events[:count], events[count:]
        # etcd ends a message that is not a fragment only at the end of a revision.
        whole_end = not events or events[0]["kv"]["mod_revision"] != piece[-1]["kv"]["mod_revision"]
        messages.append({"events": piece, "fragment": not whole_end or (bool(events) and data.draw(st.booleans()))})
    assert assembled("", 5, *messages) == [
        WatchBatch(5 + number, tuple(put(key, 5 + number) for key in keys)) for number, keys in enumerate(revisions)
    ]


async def test_a_watch_that_etcd_ends_for_compaction_says_from_where_on_there_is_history() -> None:
    cancelled = streaming({"created": True}, {"canceled": True, "compact_revision": "9"})
    with pytest.raises(Compacted) as raised:
        await asked("/v3/watch", cancelled)
    assert raised.value.oldest == 10


async def test_a_watch_that_may_not_see_the_keys_says_so() -> None:
    with pytest.raises(StoreDenied):
        await asked("/v3/watch", streaming({"canceled": True, "cancel_reason": "etcdserver: permission denied"}))


async def test_a_watch_goes_on_at_another_member_where_the_first_one_broke_off() -> None:
    asked_from: list[int] = []

    async def answer(path: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if path != "/v3/watch":
            writer.write(MARKED)
            return
        start = int(body["create_request"]["start_revision"])
        asked_from.append(start)
        writer.write(streaming({"created": True}, {"events": [event("a", start + 1)]}))
        await writer.drain()
        if len(asked_from) < 3:
            writer.transport.abort()

    told: list[int] = []
    async with pretended(answer) as first, pretended(answer) as second:
        store = await EtcdStore.open(EtcdAddress((first, second), "/p"), timeout_s=60)
        async with asyncio.timeout(60), contextlib.aclosing(store.watch("", 6)) as batches:
            async for batch in batches:
                told += [batch.revision] if batch.changes else []
                if len(told) == 3:
                    break
        await store.close()
    assert told == [6, 7, 8]
    assert asked_from == [5, 6, 7]


# Garbage.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=20) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
        ["header", "kvs", "key", "value", "revision", "result", "error", "code", "message", "events", "kv", "ID", "TTL",
         "succeeded", "fragment", "canceled", "compact_revision", "mod_revision", "cluster_id", "raft_term"]
    ), inner, max_size=6),
    max_leaves=12,
)  # fmt: skip
GARBAGE = st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode())
KINDS = (
    say.Ranged,
    say.Transacted,
    say.Granted,
    say.KeptAlive,
    say.Watched,
    say.Status,
    say.Members,
    say.Alarms,
    say.Token,
)


@given(GARBAGE, st.sampled_from(KINDS))
@example(b"[" * 100_000, say.Ranged)
@example(b'{"header": {"revision": "1e9999"}}', say.Ranged)
@example(b'{"result": {"header": {}, "events": [{"kv": {"key": "%%%"}}]}}', say.Watched)
@settings(max_examples=150)
def test_reading_garbage_raises_one_error_and_nothing_else(raw: bytes, kind: type[Any]) -> None:
    with contextlib.suppress(say.Garbled):
        say.read(raw, kind)
    with contextlib.suppress(say.Garbled):
        say.read_streamed(raw, kind)
    with contextlib.suppress(say.Garbled):
        say.read_fault(raw)


@given(st.integers(200, 599), GARBAGE, st.sampled_from(PATHS), st.booleans())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_garbage_in_place_of_an_answer_is_an_error_with_a_sentence(
    status: int, raw: bytes, path: str, framed: bool
) -> None:
    with contextlib.suppress(StoreError):
        asyncio.run(asked(path, whole(status, raw) if framed else raw or b"\0", timeout_s=0.05))
