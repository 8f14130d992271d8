"""Founding a cluster: its heartbeat key, its certificate authority, its first record.

Done once, by `outlive up` and by the lab; agents only read what stands here. The authority's key stays in the folder
where the cluster was founded, and every host gets a certificate that names it. Nothing is overwritten.
"""

import datetime
import os
import secrets
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from outlive.cluster import records as rec
from outlive.cluster.transaction import KeyValue, Put, Transaction, absent
from outlive.config.agent_file import AgentConfig
from outlive.datastore.formatting import format_datastore
from outlive.errors import RefusedForSafety
from outlive.store.opening import open_store

KEY_BYTES = 32
VALID_DAYS = 3650
STORE_S = 10.0


def make_key(path: Path) -> None:
    """Write a fresh heartbeat key, for root only, unless one is there."""
    if not path.exists():
        _write(path, secrets.token_bytes(KEY_BYTES).hex().encode() + b"\n")


@dataclass(frozen=True, slots=True)
class Authority:
    """The cluster's certificate authority, in a folder of its own: ca.pem and ca.key."""

    folder: Path

    def make(self, cluster: str) -> None:
        """Make the authority, unless it is there."""
        if (self.folder / "ca.pem").exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Outlive cluster {cluster}")])
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        certificate = (
            _builder(name, name, key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256())
        )
        _write(self.folder / "ca.key", _pem(key))
        _write(self.folder / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, host: str, address: str) -> None:
        """Make a host's certificate and key, host.pem and host.key, unless they are there."""
        if (self.folder / f"{host}.pem").exists():
            return
        authority = x509.load_pem_x509_certificate((self.folder / "ca.pem").read_bytes())
        loaded = serialization.load_pem_private_key((self.folder / "ca.key").read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        names = x509.SubjectAlternativeName([x509.DNSName(host), x509.IPAddress(ip_address(address))])
        purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        certificate = (
            _builder(name, authority.subject, key.public_key())
            .add_extension(names, critical=False)
            .add_extension(purposes, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(loaded, hashes.SHA256())
        )
        _write(self.folder / f"{host}.key", _pem(key))
        _write(self.folder / f"{host}.pem", certificate.public_bytes(serialization.Encoding.PEM))


def _builder(subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(path.name + ".new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)


class StoreTaken(RefusedForSafety):
    """The store is another cluster's."""

    id = "store.taken"


async def found_store(config: AgentConfig) -> None:
    """Make the store that the host's file names, with the cluster's record in it, unless they are there.

    Raises StoreTaken, and what opening a store raises.
    """
    cluster = config.cluster.id
    store = await open_store(config, timeout_s=STORE_S)
    try:
        record = rec.ClusterRecord(cluster, timing=config.timing)
        transaction = Transaction((absent(rec.CLUSTER),), (Put(rec.CLUSTER, rec.encode(record)),))
        done = await store.transact(transaction, timeout_s=STORE_S)
        if not done.succeeded:
            _check_ours(await store.get(rec.CLUSTER, timeout_s=STORE_S), cluster)
    finally:
        await store.close()


def _check_ours(found: KeyValue | None, cluster: str) -> None:
    """Raise StoreTaken when the record is another cluster's; one that cannot be read is for the agent to tell of."""
    try:
        record = None if found is None else rec.decode(found.key, found.value)
    except rec.BadRecord:
        return
    if isinstance(record, rec.ClusterRecord) and record.id != cluster:
        raise StoreTaken(
            f"The store is that of cluster {record.id}; this host is of {cluster}.",
            cause="a store, or its prefix in etcd, is one cluster's",
            remedy="choose another store or prefix; to make this a host of that cluster, give it that cluster's id "
            "and key in its agent file",
        )


def found_datastore(name: str, path: Path, cluster: str) -> None:
    """Make a folder, and make it a datastore of the cluster, unless it is. Raises what a datastore raises."""
    path.mkdir(parents=True, exist_ok=True)
    format_datastore(name, path, cluster)
