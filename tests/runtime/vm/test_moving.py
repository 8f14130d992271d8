"""A guest moved between two emulators: it goes on where it stopped, or where it was, and never at both."""

import asyncio
import datetime
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.machine import MODULE, Machine
from outlive.runtime.vm import moving
from outlive.runtime.vm.qmp import VmFailed
from outlive.runtime.vm.seat import Seat
from outlive.runtime.vm.states import GuestState
from outlive.runtime.vm.vm import Vm, VmRefused

from .conftest import WITHIN_S, Place, disk, machines

pytestmark = pytest.mark.timeout(300)
RUNNING = ModuleStatus.RUNNING
# What the guest says it has written to its disk before, if it has one.
_COUNT = (
    b"i=0; while sleep 0.05; do i=$((i + 1)); echo count $i | dd of=/dev/vda seek=$i conv=fsync 2>/dev/null; "
    b"echo count $i; done\n"
)
SECTOR_BYTES = 512
PACE = moving.Pace(downtime_ms=500.0, within_s=WITHIN_S)


@asynccontextmanager
async def two(place: Place, machine: Machine, other_disks: Path | None = None) -> AsyncIterator[tuple[Vm, Vm]]:
    """A guest that runs, and an empty machine that waits for it, on the same disks or on disks of its own."""
    source = place.seat(machine)
    disks = source.disks if other_disks is None else {name: other_disks / name for name in source.disks}
    target = place.seat(machine, "other", incoming=True, disks=disks)
    async with machines(place, (machine, source), (machine, target)) as [here, there]:
        await here.start(MODULE)
        await place.until_told(1)
        await there.start(MODULE)
        await place.until_told(2)
        await place.said(source, b"/ # ")
        console = await here.console.attach()
        await console.write(_COUNT)
        await place.said(source, b"count 3")
        yield here, there


async def _counts_on(place: Place, seat: Seat, after: bytes) -> None:
    """The guest counts on at that seat, from where it was at the other."""
    last = int(after.rpartition(b"count ")[2].split()[0])
    await place.said(seat, f"count {last + 20}\r".encode())


@pytest.mark.soak
async def test_a_guest_with_a_shared_disk_goes_on_at_the_target(place: Place) -> None:
    machine = place.machine(disks=(disk(),))
    async with two(place, machine) as (here, there):
        async with there.monitored() as target, here.monitored() as source:
            uri = await moving.await_guest(target, "tcp:127.0.0.1:0")
            seen: list[moving.Progress] = []
            await moving.send(source, uri, pace=PACE, told=seen.append)
            sent = await moving.switch(source, WITHIN_S)
            await moving.arrived(target, WITHIN_S)
            assert (await source.call("query-status"))["status"] == "postmigrate"
            assert (await target.call("query-status"))["status"] == "paused"
        with pytest.raises(VmRefused):
            await here.resume()
        before = await place.said(here.seat, b"")
        async with there.monitored() as target:
            await moving.go_on(target)
        await _counts_on(place, there.seat, before)
        assert seen[-1].phase == "memory"
        assert sent.bytes > 0
        assert sent.downtime_ms < WITHIN_S * 1000
        assert (here.state, there.state) == (GuestState.MOVED, GuestState.RUNNING)
        # The source let go of the lock, and does not get it back while the target has it.
        async with here.monitored() as source:
            with pytest.raises(VmFailed, match="lock"):
                await moving.roll_back(source)


async def test_local_disks_are_copied_and_it_can_be_undone_until_the_target_went_on(place: Place) -> None:
    machine = place.machine(disks=(disk(),))
    old = os.urandom(8 << 20)
    _written(place.seat(machine).disks["root"], bytes(8 << 20) + old)
    async with two(place, machine, place.folder / "elsewhere") as (here, there):
        async with there.monitored() as target, here.monitored() as source:
            at = f"unix:{there.seat.run}/disks.sock"
            uri = await moving.await_guest(target, f"unix:{there.seat.run}/guest.sock", disks=["root"], disks_at=at)
            seen: list[moving.Progress] = []
            await moving.send(source, uri, pace=PACE, told=seen.append, disks=["root"], disks_at=at)
            await moving.switch(source, WITHIN_S)
            await moving.arrived(target, WITHIN_S)
            before = await place.said(here.seat, b"")
            await moving.roll_back(source)
        await _counts_on(place, here.seat, before)
        assert seen[0].phase == "disks"
        assert here.state is GuestState.RUNNING
        assert [status for _, status, _ in place.told] == [RUNNING] * 2
    copied = there.seat.disks["root"].read_bytes()
    last = int(before.rpartition(b"count ")[2].split()[0])
    for number in range(1, last + 1):
        assert copied[number * SECTOR_BYTES :].startswith(b"count %d\n" % number)
    assert copied[8 << 20 :] == old


async def test_a_cancelled_move_leaves_the_guest_running(place: Place) -> None:
    machine = place.machine()
    async with two(place, machine) as (here, there):
        async with there.monitored() as target, here.monitored() as source:
            uri = await moving.await_guest(target, "tcp:127.0.0.1:0")
            slowly = replace(PACE, bandwidth_mib_s=1.0)
            move = asyncio.create_task(moving.send(source, uri, pace=slowly))
            async with asyncio.timeout(WITHIN_S):
                while (await source.call("query-migrate")).get("status") != "active":  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            move.cancel()
            await asyncio.wait([move])
            assert move.cancelled()
            assert (await source.call("query-status"))["status"] == "running"
        before = await place.said(here.seat, b"")
        await _counts_on(place, here.seat, before)
        assert here.state is GuestState.RUNNING
        # The target cannot do anything with half a guest, and ends.
        assert (await place.until_told(3))[1] is ModuleStatus.FAILED
        assert not [noted for noted in place.noted if noted.what == "guest.paused"]


async def test_a_move_that_no_agent_drives_any_more_is_abandoned_by_the_next(place: Place) -> None:
    machine = place.machine()
    async with two(place, machine) as (here, there):
        async with there.monitored() as target, here.monitored() as source:
            uri = await moving.await_guest(target, "tcp:127.0.0.1:0")
            await moving.send(source, uri, pace=PACE)
            assert (await source.call("query-status"))["status"] != "running"
            # What the next agent does when it adopts the machine.
            assert await moving.abandon(source)
            assert not await moving.abandon(source)
        before = await place.said(here.seat, b"")
        await _counts_on(place, here.seat, before)
        assert here.state is GuestState.RUNNING
        assert (await place.until_told(3))[1] is ModuleStatus.FAILED


async def test_a_move_is_sealed_and_the_target_proves_itself(place: Place, tmp_path: Path) -> None:
    machine = place.machine(disks=(disk(),))
    folders = {name: await asyncio.to_thread(_proof, tmp_path / "proofs", name) for name in ("host-a", "host-b")}
    async with two(place, machine, place.folder / "elsewhere") as (here, there):
        async with there.monitored() as target, here.monitored() as source:
            disks_at = "tcp:127.0.0.1:20831"
            uri = await moving.await_guest(
                target, "tcp:127.0.0.1:0", disks=["root"], disks_at=disks_at, tls=moving.Tls(folders["host-b"])
            )
            tls = moving.Tls(folders["host-a"], peer="host-b")
            await moving.send(source, uri, pace=PACE, disks=["root"], disks_at=disks_at, tls=tls)
            await moving.switch(source, WITHIN_S)
            await moving.arrived(target, WITHIN_S)
            before = await place.said(here.seat, b"")
            await moving.go_on(target)
        await _counts_on(place, there.seat, before)


def _written(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)


def _proof(folder: Path, host: str) -> Path:
    """A host's certificate from an authority made once, as QEMU wants them."""
    folder.mkdir(exist_ok=True)
    ca_key_file, ca_file = folder / "ca.key", folder / "ca.pem"
    if not ca_file.exists():
        ca_key_file.write_bytes(_pem(ec.generate_private_key(ec.SECP256R1())))
        ca_file.write_bytes(_certificate("authority", _key(ca_key_file), None, _key(ca_key_file)))
    key_file, certificate_file = folder / f"{host}.key", folder / f"{host}.pem"
    key_file.write_bytes(_pem(ec.generate_private_key(ec.SECP256R1())))
    authority = x509.load_pem_x509_certificate(ca_file.read_bytes())
    certificate_file.write_bytes(_certificate(host, _key(key_file), authority, _key(ca_key_file)))
    return moving.tls_folder(folder / host, ca_file, certificate_file, key_file, None)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _key(file: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(file.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate | None,
    signer: ec.EllipticCurvePrivateKey,
) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.subject if authority else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
    )
    if authority is not None:
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
