"""The cluster's key, ready for use: every tag that hosts put on what they say or write is made here.

A tag is 16 bytes of keyed BLAKE2s (RFC 7693). Each use of the key is personalized, so that a record tagged
for one use can never pass in another: a recorded datagram is no slot. Where the key comes from is not known
here.
"""

from enum import Enum
from hashlib import blake2s
from hmac import compare_digest

TAG_BYTES = 16
KEY_BYTES = 32
CLUSTER_BYTES = 8


class Use(Enum):
    """What a tag is for; the value personalizes the hash (at most 8 bytes)."""

    DATAGRAM = b"datagram"
    SLOT = b"slot"
    TABLE = b"table"
    PROTECTED = b"protect"


class Seal:
    """Makes and checks tags for one cluster.

    cluster: the cluster's id, 16 hexadecimal characters.  key: the cluster's secret, 32 bytes.
    """

    __slots__ = ("_states", "cluster", "cluster_bytes", "key")

    def __init__(self, cluster: str, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a cluster key has {KEY_BYTES} bytes, not {len(key)}")
        self.cluster = cluster
        self.key = key
        self.cluster_bytes = bytes.fromhex(cluster)
        if len(self.cluster_bytes) != CLUSTER_BYTES or self.cluster_bytes.hex() != cluster:
            raise ValueError(f"{cluster!r} is no cluster id: 16 hexadecimal characters in lower case")
        # Hashing the key's block once and copying the state costs less than starting anew for each record.
        self._states = {use: blake2s(key=key, digest_size=TAG_BYTES, person=use.value) for use in Use}

    def tag(self, use: Use, data: bytes) -> bytes:
        """Return the 16 bytes that show that `data` was made by a holder of the key, for this use."""
        state = self._states[use].copy()
        state.update(data)
        return state.digest()

    def holds(self, use: Use, data: bytes, tag: bytes) -> bool:
        """Whether `tag` is the tag of `data`, in time that does not depend on where they differ."""
        state = self._states[use].copy()
        state.update(data)
        return compare_digest(state.digest(), tag)

    def __repr__(self) -> str:
        return f"Seal(cluster={self.cluster!r})"
