"""A Ray cluster of several nodes on this machine, on the loopback interface alone, in a process that holds them.

``python ray_nodes.py TEMP PORT CPUS`` starts the head and reads commands from stdin, one a line:

``add CPUS [NAME=VALUE …]``  a node, with such environment variables
``kill N``                   the Nth node, at once, with all its processes
``hide PATH``                nodes that are added from now on see an empty folder there

Each is answered by a line of JSON: the node's number and id, or why it could not be done. At the end of stdin all end.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # what makes Ray stay on the loopback interface

from ray._private.node import Node
from ray._private.parameter import RayParams

NEW_MOUNTS = 0x20000  # CLONE_NEWNS


def start(temp: str, port: int, cpus: int, *, head: bool) -> Node:
    """One node more; Ray's own helper for this would make it the default cluster of everybody on the machine."""
    where = {"gcs_server_port": port} if head else {"gcs_address": f"127.0.0.1:{port}", "node_manager_port": 0}
    parameters = RayParams(
        node_ip_address="127.0.0.1",
        num_cpus=cpus,
        num_gpus=0,
        object_store_memory=80 * 1024**2,
        min_worker_port=0,
        max_worker_port=0,
        temp_dir=temp,
        include_log_monitor=False,
        include_dashboard=False,
        **where,
    )
    return Node(parameters, head=head, shutdown_at_exit=True, spawn_reaper=True)


def hide(path: str) -> str:
    """Give the processes that this one starts a view of the disk of their own, without ``path``; why not, if not."""
    if ctypes.CDLL(None, use_errno=True).unshare(NEW_MOUNTS) != 0:
        return os.strerror(ctypes.get_errno())
    for command in (["mount", "--make-rprivate", "/"], ["mount", "-t", "tmpfs", "none", path]):
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            return done.stderr
    return ""


def main() -> None:
    """See above."""
    temp, port, cpus = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    nodes = [start(temp, port, cpus, head=True)]
    print(json.dumps({"number": 0}), flush=True)
    for line in sys.stdin:
        command, value, *variables = line.split()
        if command == "hide":
            print(json.dumps({"failed": hide(value)}), flush=True)
            continue
        if command == "kill":
            number = int(value)
            nodes[number].kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
        else:
            before = dict(os.environ)
            os.environ.update(dict(variable.split("=", 1) for variable in variables))
            nodes.append(start(temp, port, int(value), head=False))
            os.environ.clear()
            os.environ.update(before)
            number = len(nodes) - 1
        print(json.dumps({"number": number, "id": nodes[number].node_id if number else ""}), flush=True)
    for node in reversed(nodes):
        node.kill_all_processes(check_alive=False, allow_graceful=False)


if __name__ == "__main__":
    main()
