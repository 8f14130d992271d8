"""The agent's process: alone in its folders, with its log, its threads and its signals, from begin to end.

What the agent does meanwhile is in `agent`. A process that cannot end by itself, since a thread of it hangs in a disk,
ends all the same: the next agent must not wait for that.
"""

import asyncio
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import structlog

from outlive.cluster.commands import Journal
from outlive.config.agent_file import AgentConfig
from outlive.errors import OutliveError
from outlive.fence.guard import Status

from . import journal as journals
from . import parts as assembly
from .agent import Agent
from .ending import AgentEnded, Ending
from .exclusive import alone_in
from .log import AgentLog
from .parts import Parts

THREADS = 24
ENDED_WITHIN_S = 10.0

log = structlog.get_logger()


def run(config: AgentConfig, *, stop_workloads: bool = False) -> None:
    """Be this host's agent until a signal ends it. Raises an OutliveError when it cannot be.

    stop_workloads: SIGTERM stops the workloads in order too, instead of leaving them to the next agent.
    """
    with alone_in(config.data_folder, config.run_folder):
        agent_log = AgentLog(config.data_folder, config.host)
        # Tasks, the loop and Python itself each wait for threads as they end, and one may hang in a disk: the next
        # agent must not wait for that. So it is not called off, and goes with the process.
        last_resort = threading.Timer(ENDED_WITHIN_S, os._exit, (1,))
        last_resort.daemon = True
        try:
            if sys.version_info < (3, 12):
                # Without it every health check of kind command would cost a thread.
                asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
            asyncio.run(_live(config, stop_workloads, last_resort))
        except Exception as error:
            # What has a sentence of its own needs no traceback; a mistake of ours does.
            ours = not isinstance(error, OutliveError)
            log.error("agent.broke", reason=str(error), kind=type(error).__name__, exc_info=ours)
            raise
        finally:
            agent_log.close()


async def _live(config: AgentConfig, stop_workloads: bool, last_resort: threading.Timer) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="agent"))
    ending = Ending(stop_workloads)
    ending.listen()
    log.info("agent.begun", host=config.host, cluster=config.cluster.id)
    try:
        async with assembly.opened(config) as parts:
            journal, status, mirror = await asyncio.gather(
                asyncio.to_thread(_journal, config), _guard_status(parts), assembly.first_picture(parts)
            )
            async with asyncio.TaskGroup() as tasks:
                agent = Agent(parts, assembly.timing_of(config, mirror), tasks)
                try:
                    await agent.run(journal, status, ending)
                finally:
                    _arm(last_resort)
    except* AgentEnded:
        log.info("agent.ended")
    finally:
        _arm(last_resort)


def _arm(last_resort: threading.Timer) -> None:
    """Have the time run within which the process ends, if it does not already."""
    if last_resort.ident is None:
        last_resort.start()


def _journal(config: AgentConfig) -> Journal | None:
    try:
        return journals.load(config.data_folder)
    except journals.JournalBad as error:
        log.error("journal.refused", reason=str(error), remedy=error.remedy)
        return None


async def _guard_status(parts: Parts) -> Status | None:
    try:
        return await parts.guard.start()
    except OutliveError as error:
        log.error("guard.not_had", reason=str(error), remedy=error.remedy)
        return None
