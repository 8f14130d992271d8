"""The store on an etcd that asks for certificates and users, runs out of room, is wiped, or holds others' keys."""

import asyncio
import base64
import contextlib
import gc
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from outlive.agent.founding import Authority
from outlive.cluster.transaction import Delete, Put, Transaction
from outlive.config.store_address import Endpoint, EtcdAddress
from outlive.store.base import (
    HistoryKept,
    StoreDenied,
    StoreError,
    StoreForeign,
    StoreFull,
    StoreReplaced,
    StoreTimeout,
    StoreUncertain,
)
from outlive.store.etcd import EtcdStore
from outlive.store.etcd_compaction import Compaction
from outlive.store.etcd_exchange import Tls
from outlive.store.etcd_login import Login

from ..ports import free_ports
from .etcd_cluster import HOST, READY_S

LIMIT_S = 60.0


class OneMember:
    """An etcd of one member on loopback. tls: the folder of an authority, with `member.pem` and `user.pem`."""

    def __init__(self, folder: Path, ports: Sequence[int], *options: str, tls: Path | None = None) -> None:
        self.folder, self._options, self._tls = folder, options, tls
        self.port, self._peer_port = ports
        self._scheme = "https" if tls else "http"
        self.start()

    def address(self, prefix: str = "/outlive") -> EtcdAddress:
        return EtcdAddress((Endpoint(HOST, self.port),), prefix, self._tls is not None)

    def start(self) -> None:
        own, peers = f"{self._scheme}://{HOST}:{self.port}", f"http://{HOST}:{self._peer_port}"
        with (self.folder / "etcd.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    "etcd", "--name", "one", "--data-dir", str(self.folder / "data"), "--logger", "zap",
                    "--listen-client-urls", own, "--advertise-client-urls", own, "--listen-peer-urls", peers,
                    "--initial-advertise-peer-urls", peers, "--initial-cluster", f"one={peers}", *self._options,
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + READY_S
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if self._serves():
                    return
            assert time.monotonic() < deadline, (self.folder / "etcd.log").read_text()[-2000:]
            time.sleep(0.05)

    def say(self, path: str, token: str = "", **body: Any) -> Any:
        """Ask as an operator would."""
        with self._client() as client:
            return client.post(
                path, json=body, headers={"Authorization": token} if token else {}, timeout=LIMIT_S
            ).json()

    def _serves(self) -> bool:
        """What newer ones tell without a user, too."""
        with self._client() as client:
            return bool(client.get("/health", timeout=LIMIT_S).json().get("health") == "true")

    def _client(self) -> httpx.Client:
        verify: ssl.SSLContext | bool = False
        if self._tls:
            verify = ssl.create_default_context(cafile=str(self._tls / "ca.pem"))
            verify.load_cert_chain(self._tls / "user.pem", self._tls / "user.key")
        return httpx.Client(base_url=f"{self._scheme}://{HOST}:{self.port}", verify=verify, trust_env=False)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(LIMIT_S)


@pytest.fixture
def folder() -> Iterator[Path]:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None, prefix="outlive-etcd-") as name:
        yield Path(name)


@contextlib.contextmanager
def member(folder: Path, *options: str, tls: Path | None = None) -> Iterator[OneMember]:
    with free_ports(2) as ports:
        made = OneMember(folder, ports, *options, tls=tls)
        try:
            yield made
        finally:
            made.kill()


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def put(key: str, value: bytes = b"1") -> Transaction:
    return Transaction((), (Put(key, value),))


def with_users(one: OneMember) -> None:
    """Have it ask for users, of which `outlive` may do what it likes below /outlive."""
    for path, body in (
        ("role/add", {"name": "root"}),
        ("role/add", {"name": "outlive"}),
        ("role/grant", {"name": "outlive", "perm": {
            "permType": "READWRITE", "key": b64("/outlive"), "range_end": b64("/outlivf")}}),
        ("user/add", {"name": "root", "password": "of the root"}),
        ("user/add", {"name": "outlive", "password": "first secret"}),
        ("user/grant", {"user": "root", "role": "root"}),
        ("user/grant", {"user": "outlive", "role": "outlive"}),
        ("enable", {}),
    ):  # fmt: skip
        assert "error" not in one.say(f"/v3/auth/{path}", **body)


def nameless(folder: Path, like: str, name: str) -> None:
    """Make a certificate of an authority without any name: etcd's gateway takes no other beside users."""
    authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    named = x509.load_pem_x509_certificate((folder / f"{like}.pem").read_bytes())
    signer = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    made = (
        x509.CertificateBuilder(authority.subject, x509.Name([]), named.public_key(), x509.random_serial_number())
        .not_valid_before(named.not_valid_before_utc)
        .not_valid_after(named.not_valid_after_utc)
        .sign(signer, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    shutil.copy(folder / f"{like}.key", folder / f"{name}.key")


# A handshake that is broken off leaves httpx's connection to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_certificates_and_a_user_are_asked_for_and_shown_and_tokens_renewed(folder: Path) -> None:
    authority, stranger = Authority(folder / "tls"), Authority(folder / "other")
    authority.make("5f0c3f9ad1b2e47c")
    stranger.make("5f0c3f9ad1b2e47d")
    authority.issue("member", HOST)
    for each in (authority, stranger):
        each.issue("named", HOST)
        nameless(each.folder, "named", "user")
    files = [str(authority.folder / name) for name in ("member.pem", "member.key", "ca.pem")]
    options = ("--cert-file", files[0], "--key-file", files[1], "--trusted-ca-file", files[2], "--client-cert-auth")
    password = folder / "password"
    password.write_text("first secret\n")
    tls = Tls(authority.folder / "ca.pem", authority.folder / "user.pem", authority.folder / "user.key")
    login = Login("outlive", password)
    with member(folder, *options, tls=authority.folder) as one:
        with_users(one)

        for other_tls in (
            Tls(authority.folder / "ca.pem"),
            Tls(stranger.folder / "ca.pem", tls.certificate, tls.key),
            Tls(tls.ca, stranger.folder / "user.pem", stranger.folder / "user.key"),
        ):
            with pytest.raises(StoreTimeout):
                await EtcdStore.open(one.address(), timeout_s=0.3, tls=other_tls, login=login)
        named = Tls(tls.ca, authority.folder / "named.pem", authority.folder / "named.key")
        with pytest.raises(StoreDenied, match="CommonName"):
            await EtcdStore.open(one.address(), timeout_s=LIMIT_S, tls=named, login=login)
        with pytest.raises(StoreDenied):
            await EtcdStore.open(one.address(), timeout_s=LIMIT_S, tls=tls)
        with pytest.raises(StoreDenied):
            await EtcdStore.open(one.address("/elsewhere"), timeout_s=LIMIT_S, tls=tls, login=login)
        wrong = folder / "wrong"
        wrong.write_text("not the secret")
        with pytest.raises(StoreDenied) as denied:
            await EtcdStore.open(one.address(), timeout_s=LIMIT_S, tls=tls, login=Login("outlive", wrong))
        assert "not the secret" not in f"{denied.value} {denied.value.remedy}"

        store = await EtcdStore.open(one.address(), timeout_s=LIMIT_S, tls=tls, login=login)
        lease = await store.grant_lease(60, timeout_s=LIMIT_S)
        first = await store.transact(Transaction((), (Put("key", b"1", lease.id),)), timeout_s=LIMIT_S)
        async with asyncio.timeout(60), contextlib.aclosing(store.watch("", first.revision, silence_s=30)) as watch:
            assert (await anext(watch)).changes
            # A member that was started again knows no tokens.
            one.kill()
            await asyncio.to_thread(one.start)
            assert (await store.transact(put("key"), timeout_s=LIMIT_S)).succeeded
            assert await store.keep_alive(lease.id, timeout_s=LIMIT_S) >= 60
            async for batch in watch:
                if batch.changes:
                    break
        alone = await EtcdStore.open(
            one.address(), timeout_s=LIMIT_S, tls=tls, login=login, compaction=Compaction.ALONE
        )
        with pytest.raises(HistoryKept, match="may not look"):
            await alone.compact(1, timeout_s=LIMIT_S)
        await alone.close()
        token = one.say("/v3/auth/authenticate", name="root", password="of the root")["token"]
        one.say("/v3/auth/user/changepw", token, name="outlive", password="second secret")
        password.write_text("second secret")
        assert (await store.transact(put("key"), timeout_s=LIMIT_S)).succeeded
        one.say("/v3/auth/user/delete", token, name="outlive")
        with pytest.raises(StoreDenied):
            await store.transact(put("key"), timeout_s=LIMIT_S)
        await store.close()
    gc.collect()


async def test_a_full_database_takes_no_writes_until_room_was_made(folder: Path) -> None:
    with member(folder, "--quota-backend-bytes", str(2 * 1024 * 1024)) as one:
        store = await EtcdStore.open(one.address(), timeout_s=LIMIT_S)
        await store.transact(put("small"), timeout_s=LIMIT_S)

        refusals: list[type[StoreError]] = []
        while StoreFull not in refusals:
            try:
                await store.transact(put("large", b"x" * 500_000), timeout_s=LIMIT_S)
            except StoreError as error:
                refusals.append(type(error))
        # The first refusal may have come after the write; only one that was never sent is called sure.
        assert refusals[0] is StoreUncertain
        found = await store.get("small", timeout_s=LIMIT_S)
        assert found is not None
        done = await store.transact(Transaction((), (Delete("large"),)), timeout_s=LIMIT_S)
        assert done.succeeded

        await store.compact(done.revision, timeout_s=LIMIT_S)
        one.say("/v3/maintenance/defragment")
        (alarm,) = one.say("/v3/maintenance/alarm", action="GET")["alarms"]
        one.say("/v3/maintenance/alarm", action="DEACTIVATE", alarm="NOSPACE", memberID=alarm["memberID"])
        assert (await store.transact(put("small", b"2"), timeout_s=LIMIT_S)).succeeded
        await store.close()


async def test_an_etcd_that_was_wiped_or_put_back_is_not_taken_for_the_same_store(folder: Path) -> None:
    with member(folder) as one:
        store = await EtcdStore.open(one.address(), timeout_s=LIMIT_S)
        for _ in range(5):
            await store.transact(put("key"), timeout_s=LIMIT_S)
        one.process.send_signal(signal.SIGTERM)
        one.process.wait(LIMIT_S)
        shutil.rmtree(folder / "data")
        await asyncio.to_thread(one.start)

        with pytest.raises(StoreReplaced):
            await store.list("", timeout_s=LIMIT_S)
        await store.close()


async def test_a_prefix_with_another_programs_keys_is_left_alone(folder: Path) -> None:
    with member(folder) as one:
        one.say("/v3/kv/put", key=b64("/outlive/theirs"), value=b64("1"))
        with pytest.raises(StoreForeign):
            await EtcdStore.open(one.address(), timeout_s=LIMIT_S)
        store = await EtcdStore.open(one.address("/ours"), timeout_s=LIMIT_S)
        assert (await store.list("", timeout_s=LIMIT_S)).keys == ()
        again = await EtcdStore.open(one.address("/ours"), timeout_s=LIMIT_S, begin=False)
        for each in (store, again):
            await each.close()


async def test_a_watch_beside_other_programs_is_fresh_all_the_same(folder: Path) -> None:
    """Their changes move the revision and are not told; a mark of ours shows that nothing of ours is missing."""
    with member(folder) as one:
        store = await EtcdStore.open(one.address(), timeout_s=LIMIT_S)
        revision = (await store.transact(put("key"), timeout_s=LIMIT_S)).revision
        async with asyncio.timeout(60), contextlib.aclosing(store.watch("", revision)) as watch:
            assert [batch.changes for batch in [await anext(watch)]] != [()]
            for _ in range(3):
                one.say("/v3/kv/put", key=b64("/elsewhere"), value=b64("1"))
            async for batch in watch:
                assert batch.changes == ()
                if batch.revision >= revision + 3:
                    break
        others = (await store.tenancy(timeout_s=LIMIT_S)).others
        assert others == 1
        assert [key.key for key in (await store.list("", timeout_s=LIMIT_S)).keys] == ["key"]
        await store.close()
