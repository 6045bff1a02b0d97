"""The Ray that a sweep runs on: one of our own for the time of the sweep, or a cluster that is there already.

Knows how it starts, how it ends, and when it is broken; what runs on it is the engine's business.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import ray
from ray._private import ray_constants

from repsim.errors import Mistake, RequestError, one_line
from sweeps.slots import Slots

QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Ray's snapshots are never read: make them rare.
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}
LOOK_EVERY = 1.0
"""Seconds between two looks at Ray's own processes and at trials that have been silent for too long."""
_STUCK_SECONDS = 5.0
"""So long after a death of Ray's own processes the main thread has noticed it, or never will."""


class EngineLost(BaseException):
    """Ray is broken beyond what it mends itself: a new one has to be started, from the journal.

    Not an Exception, so that Ray does not take it for one of its own on the way out.
    """


@contextmanager
def cluster(slots: Slots, address: str | None, on_stuck: Callable[[str], None]) -> Iterator[None]:
    """A Ray of our own for the time of the sweep (loopback only), or the cluster at ``address``.

    ``on_stuck`` is called, on a thread of its own, when a process of Ray's has died and the main thread, which may be
    waiting for just that process, has not found out.
    Raises EngineLost when Ray does not start, RequestError when the cluster cannot be joined.
    """
    os.environ.update(QUIET)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(slots.threads)
    for name in ("ray", "ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    options: dict[str, object] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is None:
        # Ray binds to the machine's public address even on a laptop, except where it believes it cannot form clusters.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        ray_constants.ENABLE_RAY_CLUSTER = False
        options |= {
            "address": "local",
            "num_cpus": slots.total_cpus,
            "include_dashboard": False,
        }
    else:
        options["address"] = address
    _start(options, address)
    lost, over = False, threading.Event()
    threading.Thread(target=_stand_by, args=(over, on_stuck), name="Ray's watch", daemon=True).start()
    try:
        yield
    except EngineLost:
        lost = True
        raise
    finally:
        over.set()
        node = ray._private.worker._global_node
        if node is not None and (lost or node.dead_processes()):
            # an orderly end would wait for processes that are gone
            node.kill_all_processes(check_alive=False, allow_graceful=False)
        else:
            ray.shutdown()


def _start(options: Mapping[str, object], address: str | None) -> None:
    """Start or join Ray, without the signal handlers it would install over ours."""
    install, ray._private.utils.set_sigterm_handler = ray._private.utils.set_sigterm_handler, lambda handler: None
    try:
        ray.init(**options)
    except Exception as error:  # a node that takes too long to start, on a busy machine, is a plain Exception to Ray
        said = one_line(" ".join(str(error).split()), 200)
        if address is not None:
            raise RequestError(Mistake(where="--address", key=address, problem=f"cannot be joined: {said}")) from None
        raise EngineLost(f"Ray does not start: {said}") from None
    finally:
        ray._private.utils.set_sigterm_handler = install


def _stand_by(over: threading.Event, on_stuck: Callable[[str], None]) -> None:
    while not over.wait(LOOK_EVERY):
        try:
            check_own_processes()
        except EngineLost as lost:
            if not over.wait(_STUCK_SECONDS):
                on_stuck(str(lost))
                return


def check_own_processes() -> None:
    """EngineLost when a process of the Ray that we started is gone."""
    node = ray._private.worker._global_node
    if node is not None and node.dead_processes():
        names = ", ".join(sorted({name for name, _ in node.dead_processes()}))
        raise EngineLost(f"Ray's {names} died")
