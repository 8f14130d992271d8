"""The process that touches a datastore's files for the agent, one for each datastore.

A system call on hung storage cannot be interrupted, not even by closing its thread; a process can be left behind.
So the agent speaks to this one over a socket, request by request, and abandons it when it does not answer. It ends
by itself when the agent does. A frame: two lengths (network order, 4 bytes each), a JSON object, raw bytes.

Only the standard library is imported, and JSON instead of msgpack, so that it starts in a few hundredths of a
second and stays small: when storage hangs, it is started again and again.
"""

import json
import os
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

from .folder import Folder
from .opening import FolderTrouble, Trouble

LENGTHS = struct.Struct(">II")
MOST_FRAME_BYTES = 16 * 1024 * 1024

# Run by a bare interpreter (`-I -S`): no site-packages to look through, and no import hooks.
BOOTSTRAP = "import sys; sys.path.append(sys.argv.pop(1)); from outlive.datastore.worker import main; main()"


def frame(header: dict[str, Any], blob: bytes = b"") -> bytes:
    """One frame's bytes."""
    text = json.dumps(header).encode()
    return LENGTHS.pack(len(text), len(blob)) + text + blob


def perform(folder: Folder, request: dict[str, Any], blob: bytes) -> tuple[dict[str, Any], bytes]:
    """Do what one request asks; return the reply's header and bytes. Raises FolderTrouble."""
    call: str = request["call"]
    if call == "read_slots":
        slots = folder.read_slots(request["hosts"])
        raws = [raw if isinstance(raw, bytes) else b"" for raw in slots.values()]
        told = [
            (host, len(raw), found if isinstance(found, str) else "")
            for (host, found), raw in zip(slots.items(), raws, strict=True)
        ]
        return {"slots": told}, b"".join(raws)
    simple: dict[str, Callable[[], Any]] = {
        "write_slot": lambda: folder.write_slot(blob),
        "write_table": lambda: folder.write_table(request["digest"], blob),
        "write_protected": lambda: folder.write_protected(blob),
        "read_table": lambda: folder.read_table(request["host"], request["digest"], request["most_bytes"]),
        "read_protected": lambda: folder.read_protected(request["most_bytes"]),
        "space": folder.space,
        "ensure_data_folder": lambda: folder.ensure_data_folder(request["workload"]),
    }
    result = simple[call]()
    if isinstance(result, bytes):
        return {"present": True}, result
    if isinstance(result, dict):
        return {"space": result}, b""
    return {"present": result is not None, "text": result or ""}, b""


def serve(sock: socket.socket, folder: Folder) -> None:
    """Answer requests one after the other until the other side is gone."""
    with sock.makefile("rb") as requests:
        while len(lengths := requests.read(LENGTHS.size)) == LENGTHS.size:
            text_bytes, blob_bytes = LENGTHS.unpack(lengths)
            if text_bytes + blob_bytes > MOST_FRAME_BYTES:
                return
            request, blob = json.loads(requests.read(text_bytes)), requests.read(blob_bytes)
            try:
                reply = frame(*perform(folder, request, blob))
            except FolderTrouble as trouble:
                reply = frame({"trouble": trouble.trouble.value, "cause": trouble.cause})
            except Exception as error:  # the agent must hear of it, and the next request may go well
                reply = frame({"trouble": Trouble.FAILED.value, "cause": repr(error)})
            sock.sendall(reply)


def main() -> None:
    """Arguments: the datastore's path, the cluster's id, this host's name. Standard input is the socket."""
    path, cluster, host = sys.argv[1:]
    os.chdir("/")  # so that no mount is kept busy
    os.umask(0o022)
    try:
        serve(socket.socket(fileno=0), Folder(path, cluster, host))
    except (OSError, ValueError, EOFError):
        sys.exit(0)  # the agent is gone, in the middle of a frame


if __name__ == "__main__":
    main()
