"""Serving the API: on a Unix socket for this host's root, and by TLS for other agents.

The socket is made for root only and replaced at every start. Other agents show a certificate of the cluster's own
authority, or they are not talked to.
"""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from .app import application
from .view import View

STOP_S = 2


@dataclass(frozen=True, slots=True)
class PeerPort:
    """Where other agents are answered, and the files that prove who is who."""

    address: str
    port: int
    ca: Path
    certificate: Path
    key: Path


class _Server(uvicorn.Server):
    """uvicorn, without its own idea of signals: the agent decides when it ends."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


@asynccontextmanager
async def serving(view: View, path: Path, peers: PeerPort | None) -> AsyncIterator[None]:
    """Answer requests for as long as the block lasts. Raises OSError when the socket or port cannot be had."""
    servers = [(_Server(_config(view)), _unix_socket(path))]
    if peers is not None:
        servers.append((_Server(_peer_config(view, peers)), _peer_socket(peers)))
    async with asyncio.TaskGroup() as group:
        for server, listening in servers:
            group.create_task(server.serve([listening]))
        try:
            yield
        finally:
            for server, _ in servers:
                server.should_exit = True
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def _config(view: View) -> uvicorn.Config:
    return uvicorn.Config(
        application(view),
        log_config=None,
        access_log=False,
        lifespan="off",
        loop="none",
        timeout_graceful_shutdown=STOP_S,
    )


def _peer_config(view: View, peers: PeerPort) -> uvicorn.Config:
    config = uvicorn.Config(
        application(view, peers_only=True),
        log_config=None,
        access_log=False,
        lifespan="off",
        loop="none",
        timeout_graceful_shutdown=STOP_S,
        ssl_certfile=peers.certificate,
        ssl_keyfile=str(peers.key),
        ssl_ca_certs=str(peers.ca),
        ssl_cert_reqs=ssl.CERT_REQUIRED,
    )
    config.load()
    assert config.ssl is not None
    config.ssl.minimum_version = ssl.TLSVersion.TLSv1_3
    return config


def _unix_socket(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o077)
    try:
        listening.bind(str(path))
    finally:
        os.umask(before)
    listening.listen(128)
    return listening


def _peer_socket(peers: PeerPort) -> socket.socket:
    family = socket.AF_INET6 if ":" in peers.address else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((peers.address, peers.port))
    listening.listen(128)
    return listening
