"""A communication manager that is none: it speaks the control protocol as badly as its test wants, and holds nothing.

Run as a program of its own in the place of `python -m outlive.replication`; what it is told is written to `heard`
beside its configuration.
"""

import os
import socket
import sys
import threading
import time
from pathlib import Path

from outlive.replication import control

STATUS = control.Status("free", 7, 3)


def say(connection: socket.socket, *events: control.Event) -> None:
    connection.sendall(b"".join(control.encode(event) for event in events))


def serve(connection: socket.socket, how: str, heard: Path) -> None:
    """One agent's connection."""
    match how:
        case "mute":
            time.sleep(600)
        case "garbled from the start":
            connection.sendall(b"\x00{]\n")
        case "begins in the middle":
            say(connection, control.Listening(4000))
    say(connection, STATUS)
    match how:
        case "endless line":
            connection.sendall(b"x" * (2 * control.MOST_LINE_BYTES))
        case "garbled":
            connection.sendall(b'{"told": "nothing that is known"}\n')
        case "half a line":
            connection.sendall(b'{"told": "prog')
            connection.close()
            return
        case "fails":
            say(connection, control.Paired(1, 7, 3), control.BecameFailed("QEMU does not answer"))
        case "hangs":
            say(connection, control.Seeding(1, 2, 1))
            time.sleep(600)
    with connection.makefile("rb") as lines:
        for line in lines:
            with heard.open("ab") as file:
                file.write(line)
            command = control.decode_command(line)
            if isinstance(command, control.AskStatus):
                say(connection, STATUS)
            elif isinstance(command, control.Pair):
                say(connection, control.Seeding(0, 9, 1), control.Paired(1, command.generation, command.pairing))


def main(config: Path, how: str) -> None:
    if how == "ends at once":
        sys.exit(3)
    path = config.with_name("comm.sock")
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        if how == "leaves a child":
            os.fork()
        while True:
            connection, _ = listening.accept()
            threading.Thread(target=serve, args=(connection, how, config.with_name("heard")), daemon=True).start()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
