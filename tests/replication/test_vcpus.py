"""How busy a guest is follows from what its processors' threads computed, and is not guessed low."""

import os
import threading
import time
from pathlib import Path

from outlive.replication.vcpus import Vcpus


def test_a_thread_that_computes_is_busy_and_one_that_sleeps_is_not() -> None:
    ended = threading.Event()
    sleeper = threading.Thread(target=ended.wait)
    sleeper.start()
    asleep = Vcpus(os.getpid(), [sleeper.native_id or 0])
    awake = Vcpus(os.getpid(), [sleeper.native_id or 0, threading.get_native_id()])
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    try:
        assert asleep.busy_share() < 0.1
        # The busiest counts; others may have had the processor for most of the time.
        assert 0.0 < awake.busy_share() <= 1.0
        awake.begin()
        assert 0.0 <= awake.busy_share() <= 1.0
    finally:
        ended.set()
        sleeper.join()
        asleep.close()
        awake.close()


def test_what_cannot_be_counted_is_busy(tmp_path: Path) -> None:
    nobody = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1
    for vcpus in (Vcpus(nobody, [nobody]), Vcpus(os.getpid(), [])):
        assert vcpus.busy_share() == 1.0
        vcpus.close()
