"""The Ray cluster of the engine `ray`: at RAY_ADDRESS, or on this machine for the duration of a command.

Tasks on it run the functions of the engine `local`. Ray repeats a task whose process has ended, so a task writes the
same files when it is run again.

Ray is imported within functions only: it is an extra, and the engine `local` does not need it.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from app import cpus
from app.errors import OnTimeError

Result = TypeVar("Result")
ADDRESS = "RAY_ADDRESS"
RETRIES = 1
ANSWER_SECONDS = 10
OBJECT_STORE_BYTES = 300_000_000
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # without it, Ray warns about GPUs
}
LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""The setting that lets all processes of Ray listen and connect on 127.0.0.1 only."""
OWN_SETTINGS = LOOPBACK_ONLY | {  # of a cluster of this machine alone
    "RAY_agent_register_timeout_ms": "120000",  # on a busy machine, 30 s are too few
    "RAY_worker_niceness": "0",  # not 15: the worker of a command is not a background job
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process less to start
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # else Ray writes one to the home folder
}


@contextmanager
def cluster(workers: int = 0) -> Iterator[int]:
    """Connect to RAY_ADDRESS, or start a cluster with a processor for each worker; disconnect or end it afterwards.

    Yields the number of workers: `workers`, or by default the processors of the cluster or of this machine.
    """
    address = os.environ.get(ADDRESS, "")
    if address:
        _check(address)
    os.environ |= SETTINGS | ({} if address else OWN_SETTINGS)
    ray = installed()
    with tempfile.TemporaryDirectory(prefix="on-time-ray-", ignore_cleanup_errors=True) as scratch:
        options: dict[str, Any] = {}
        if not address:
            options = {
                "num_cpus": workers or cpus.available(),
                "include_dashboard": False,
                "object_store_memory": OBJECT_STORE_BYTES,
                "_temp_dir": scratch,
            }
        try:
            _connect(ray, address, options)
            yield _enough(ray, workers)
        finally:
            ray.shutdown()


def installed() -> Any:
    """Return Ray; raise OnTimeError if it is not installed."""
    try:
        import ray  # pylint: disable=import-outside-toplevel # an extra, which takes seconds
    except ImportError as err:
        raise OnTimeError("The engine `ray` needs Ray, which is not installed: make ray") from err
    return ray


def _check(address: str) -> None:
    """Raise OnTimeError unless something listens at an address: `ray.init` would wait for minutes."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise OnTimeError(f"{ADDRESS} is {address}, must be HOST:PORT of a cluster, or unset to use this machine.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except OSError as err:
        raise _silent(address, err.strerror or str(err)) from err


def _silent(address: str, reason: str) -> OnTimeError:
    return OnTimeError(
        f"no Ray cluster answers at {ADDRESS}={address}: {reason}. Start it, set RAY_AUTH_MODE and "
        f"RAY_AUTH_TOKEN if it needs a token, or unset {ADDRESS}."
    )


def _connect(ray: Any, address: str, options: dict[str, Any], retry: bool = True) -> None:
    for name in ("ray", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level="error", **options)
    except Exception as err:  # pylint: disable=broad-exception-caught # Ray raises this class itself
        reason = (str(err).splitlines() or [type(err).__name__])[0].rstrip(".")
        if address:
            raise _silent(address, reason) from err
        if not retry:
            raise OnTimeError(f"Ray does not start: {reason}.") from err
        # Ray gives a new cluster 15 s, too few on a busy machine.
        _connect(ray, address, options, retry=False)


def _enough(ray: Any, workers: int) -> int:
    """Return the number of workers; raise OnTimeError if there are too few processors: Ray would wait for more."""
    processors = int(ray.cluster_resources().get("CPU", 0))
    if processors < max(1, workers):
        raise OnTimeError(
            f"the Ray cluster has {processors} processors for {max(1, workers)} workers. Add processors, or use fewer "
            "workers."
        )
    return workers or processors


def results(task: Callable[[int], Result], count: int, workers: int) -> Iterator[Result]:
    """Call a function with each number below `count`, on a running cluster; yield the results in any order.

    Raises the OnTimeError that a task has raised, or one for a task whose process has ended twice.
    """
    ray = installed()
    remote = ray.remote(max_retries=RETRIES)(_run)
    waiting = list(range(count))
    running: list[Any] = []
    while waiting or running:
        while waiting and len(running) < workers:
            running.append(remote.remote(task, waiting.pop(0), Path.cwd()))
        done, running = ray.wait(running)
        try:
            yield ray.get(done[0])
        except ray.exceptions.RayError as err:
            cause = getattr(err, "cause", None)
            if isinstance(cause, OnTimeError):
                raise cause from err
            raise ended(str(err)) from err


def ended(reason: str) -> OnTimeError:
    """Return the error for processes of Ray that have ended, by the last line of its reason."""
    last = (reason.strip().splitlines() or ["no reason given"])[-1].rstrip(".")
    return OnTimeError(
        f"Ray has ended, after a retry too: {last}. Check the memory of the workers, and repeat the command."
    )


def _run(task: Callable[[int], Result], number: int, folder: Path) -> Result:
    os.chdir(folder)  # a worker of a cluster starts elsewhere; paths are relative to the folder of the command
    return task(number)
