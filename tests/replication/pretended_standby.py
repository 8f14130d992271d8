"""A standby that welcomes one primary, and reads and acknowledges only what a test tells it to."""

import socket
import threading

from outlive.replication import handshake
from outlive.replication.handshake import Welcome
from outlive.replication.link import Link, boot_s
from outlive.replication.stream import Kind, Receiver, Reign, Sender


class Pulse:
    """A keep-alive whose peer is heard all the time. stood_s: how long we gave no sign ourselves."""

    stood_s = 0.0

    def __init__(self, *_: object, **__: object) -> None: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    @property
    def told_at(self) -> float:
        return boot_s() - self.stood_s


class PretendedStandby:
    """Listens on loopback until closed. receiver, sender: its end of the stream, once the primary is connected."""

    def __init__(self, reign: Reign) -> None:
        self._reign = reign
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._welcoming = threading.Thread(target=self._welcome, daemon=True)
        self._welcoming.start()

    @property
    def receiver(self) -> Receiver:
        self._welcoming.join(60)
        return self._receiver

    def reads_until(self, kind: Kind) -> list[Kind]:
        """Read what was sent, up to the first of that kind."""
        kinds: list[Kind] = []
        while kind not in kinds:
            message = self.receiver.receive(30)
            kinds.append(message.kind)
            self.epoch, self.flags = message.epoch, message.flags
        return kinds

    def acknowledges(self, number: int) -> None:
        self._welcoming.join(60)
        self._sender.send(Kind.ACKNOWLEDGED, epoch=number, within_s=60)

    def close(self) -> None:
        self._welcoming.join(60)
        self._link.dispose()
        self._listener.close()

    def _welcome(self) -> None:
        connection, _ = self._listener.accept()
        self._link = Link(connection)
        self._receiver, self._sender = Receiver(self._link, self._reign), Sender(self._link, self._reign)
        assert self._receiver.receive(20).kind is Kind.HELLO
        self._sender.send(Kind.WELCOME, [handshake.pack(Welcome("welcome", "b"))], within_s=60)
