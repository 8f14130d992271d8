"""One communication manager: from its configuration to its end, through its roles.

The invariant: at any moment exactly one role owns the ports and the monitor, and a role that ends because of an error
that nobody foresaw ends the process with its frames held, never released.
"""

import contextlib
import gc
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from outlive.errors import OutliveError
from outlive.replication.comm_config import CommConfig, read_config
from outlive.replication.control import Status
from outlive.replication.control_server import ControlServer, Wake
from outlive.replication.machine import Machine, qemu_owner
from outlive.replication.ports import Ports
from outlive.replication.primary import Primary
from outlive.replication.standby import Standby, TookOver

_SWITCH_S = 0.0005
"""How long one Python thread may keep another waiting: the pulse and the acknowledgements are on their own."""
_NICE = -10

_log = structlog.get_logger()


def main(config_path: Path) -> int:
    """Run the manager that this file describes, until it is ended or its machine is. Returns the exit code."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        config = read_config(config_path)
        if config.hot is not None:
            _run(config)
        elif config.warm is not None:
            from outlive.replication import warm  # machines that are only checkpointed alone load what writes them

            warm.serve(config, config.warm)
    except OutliveError as error:
        _log.error("manager.failed", because=str(error))
        return error.exit_code
    return 0


def _run(config: CommConfig) -> None:
    sys.setswitchinterval(_SWITCH_S)
    # It needs little, but at once: clients wait for what it holds.
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, min(_NICE, os.getpriority(os.PRIO_PROCESS, 0)))
    roles: list[Callable[[], Status]] = []

    def status() -> Status:
        return roles[-1]() if roles else Status("starting", config.generation, config.pairing)

    wake = Wake()
    Path(config.state_dir).mkdir(parents=True, exist_ok=True, mode=0o700)
    ports = Ports(config.nics, collect=config.role == "standby", owner=qemu_owner(config.qemu_pid))
    control = ControlServer(config.control_socket, status, wake)
    try:
        took_over: TookOver | None = None
        if config.role == "standby":
            standby = Standby(config, control, wake, ports)
            roles.append(standby.status)
            took_over = standby.run()
            config = msgspec.structs.replace(config, role="primary", pairing=took_over.pairing)
        _serve_primary(config, control, wake, ports, took_over, roles)
    finally:
        control.close()
        ports.close()


def _serve_primary(
    config: CommConfig,
    control: ControlServer,
    wake: Wake,
    ports: Ports,
    took_over: TookOver | None,
    roles: list[Callable[[], Status]],
) -> None:
    machine = Machine(
        config,
        ports,
        wake.set,
        memory=took_over.memory if took_over else None,
        qmp=took_over.qmp if took_over else None,
    )
    try:
        primary = Primary(
            config, control, wake, ports, machine, took_over.generation if took_over else config.generation
        )
        roles.append(primary.status)
        # An agent that was quick was told "starting", or "adopting" and never how that ended.
        control.tell(primary.status())
        # What was made so far stays: the collector need not look at it again in the middle of an epoch.
        gc.collect()
        gc.freeze()
        primary.run()
    finally:
        machine.close()
