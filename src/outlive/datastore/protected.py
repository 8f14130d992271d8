"""The list of workloads that the cluster protects, as it stands in each datastore.

Pure: a value and its bytes. The leader writes the list so that a host that lost the store, or a person with
nothing but the storage, can still see what should run where. The store stays the authority: the list is
evidence, and a garbled or forged one is refused with its reason. JSON, so that a person can read it.
"""

from dataclasses import dataclass

import msgspec

from outlive.cluster.host import NAME
from outlive.wire.record import Reason, Refused
from outlive.wire.seal import Seal, Use

FORMAT = 1
MOST_FILE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ProtectedWorkload:
    """host: where the leader placed it at this generation; '' for nowhere."""

    workload: str
    generation: int
    host: str


@dataclass(frozen=True, slots=True)
class ProtectedList:
    """What the leader knew when it wrote. revision: of the store, so that the newer of two lists can be told."""

    written_by: str
    revision: int
    workloads: tuple[ProtectedWorkload, ...]


@dataclass(frozen=True, slots=True)
class _File:
    format: int
    cluster: str
    checksum: str
    protected: ProtectedList


def pack_protected(protected: ProtectedList, seal: Seal) -> bytes:
    """The file's bytes."""
    file = _File(FORMAT, seal.cluster, _checksum(protected, seal), protected)
    return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"


def unpack_protected(raw: bytes, seal: Seal) -> ProtectedList | Refused:
    """The list, or why these bytes are not one of this cluster. Raises nothing."""
    if len(raw) > MOST_FILE_BYTES:
        return Refused(Reason.TOO_LARGE, f"more than {MOST_FILE_BYTES} bytes")
    try:
        version = msgspec.json.decode(raw, type=dict[str, msgspec.Raw]).get("format")
        if version is not None and bytes(version) != str(FORMAT).encode():
            return Refused(Reason.OTHER_VERSION, f"format {bytes(version)[:20]!r}, this host knows {FORMAT}")
        file = msgspec.json.decode(raw, type=_File)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return Refused(Reason.MALFORMED, str(error))
    if file.cluster != seal.cluster:
        return Refused(Reason.FOREIGN_CLUSTER, f"of cluster {file.cluster[:40]!r}")
    if file.checksum != _checksum(file.protected, seal):
        return Refused(Reason.WRONG_TAG, "its checksum does not hold: damaged, or changed by hand")
    if not all(NAME.fullmatch(entry.workload) and entry.generation > 0 for entry in file.protected.workloads):
        return Refused(Reason.MALFORMED, "it names a workload or generation that cannot be")
    return file.protected


def _checksum(protected: ProtectedList, seal: Seal) -> str:
    return seal.tag(Use.PROTECTED, msgspec.json.encode(protected)).hex()
