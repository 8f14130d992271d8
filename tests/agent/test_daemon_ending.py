"""A process whose thread hangs in a disk ends all the same, wherever it would wait for that thread."""

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, contextlib, sys, threading
from types import SimpleNamespace
from outlive.agent import daemon
from outlive.agent.ending import AgentEnded
from outlive.agent.package_threads import Threads

begun, never = threading.Event(), threading.Event()
def hang():
    begun.set()
    never.wait()

async def life():
    await getattr(Threads("hung", 1), sys.argv[1])(hang)

class Agent:
    def __init__(self, parts, timing, tasks):
        self.tasks = tasks
    async def run(self, *_):
        self.tasks.create_task(life())
        await asyncio.to_thread(begun.wait)
        raise AgentEnded

@contextlib.asynccontextmanager
async def opened(config):
    yield None

async def nothing(*_):
    return None

daemon.Agent, daemon.ENDED_WITHIN_S = Agent, 0.5
daemon.alone_in = lambda *_: contextlib.nullcontext()
daemon.AgentLog = lambda *_: SimpleNamespace(close=lambda: None)
daemon.assembly = SimpleNamespace(opened=opened, first_picture=nothing, timing_of=lambda *_: None)
daemon._guard_status, daemon._journal = nothing, lambda _: None
daemon.run(SimpleNamespace(host="a", cluster=SimpleNamespace(id="x"), data_folder=None, run_folder=None))
"""


@pytest.mark.parametrize("waits", ["run", "left"], ids=["a task waits for it", "Python waits for it"])
def test_a_thread_that_hangs_keeps_no_agent_from_ending(waits: str) -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM, waits], timeout=60, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "agent.broke" not in ended.stdout + ended.stderr
