"""Having the API served for as long as the agent runs.

It is loaded in a thread, after everything that must not wait, and started again when it fails: an API that cannot be
served costs people their view and no workload its host.
"""

import asyncio
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import structlog

from outlive.config.agent_file import AgentConfig

from .view import AgentView

AGAIN_S = 5.0

log = structlog.get_logger()


async def answer(config: AgentConfig, view: AgentView) -> None:
    """Serve the API until cancelled."""
    path = config.run_folder / "api.sock"
    while True:
        try:
            serving = await asyncio.to_thread(_loaded, config, view, path)
            async with serving:
                log.info("api.served", socket=str(path), peers=config.tls is not None)
                await asyncio.Event().wait()
        except Exception as error:
            # Whatever it is: the machines go on without it.
            log.error("api.not_served", socket=str(path), reason=str(error) or type(error).__name__)
        await asyncio.sleep(AGAIN_S)


def _loaded(config: AgentConfig, view: AgentView, path: Path) -> AbstractAsyncContextManager[None]:
    from outlive.api.server import PeerPort, serving

    peers = None
    if config.tls is not None:
        tls = config.tls
        peers = PeerPort(config.address, config.peer_port, tls.ca, tls.certificate, tls.key)
    return serving(view, path, peers)
