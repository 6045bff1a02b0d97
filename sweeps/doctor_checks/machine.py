"""One machine: its home folder, temporary folder, shared memory, file descriptors, cores, memory and loopback."""

from __future__ import annotations

import os
import resource
import socket
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from sweeps.doctor_checks.findings import Finding, bad, doubt, good, size_text

SOCKET_BYTES = 107
"""The longest path of a Unix socket."""
_SESSION = "ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""The longest path that Ray makes a socket at, below the temporary folder."""
SHARED_BYTES = 1_000_000_000
DESCRIPTORS = 4096
"""Ray complains below this."""
SLOT_BYTES = 1_500_000_000
"""Memory of a trial's process: torch, a small backbone, its optimiser and batches."""


def home(environment: Mapping[str, str]) -> Finding:
    """Ray writes its token into the home folder, and caches lie there by default."""
    folder = Path(environment["HOME"]) if environment.get("HOME") else Path.home()
    problem = write_problem(folder)
    if problem is None:
        return good("home", f"{folder} can be written")
    advice = "set HOME to a folder of yours (Ray keeps its token in ~/.ray, decoded images go to ~/.cache)"
    if _token_given(environment):
        return doubt("home", f"{folder} {problem}", f"{advice}; the token is given otherwise")
    return bad("home", f"{folder} {problem}", advice)


def _token_given(environment: Mapping[str, str]) -> bool:
    given = any(environment.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    return given or environment.get("RAY_AUTH_MODE", "").lower() == "disabled"


def token(environment: Mapping[str, str], *, joining: bool) -> Finding:
    """Ray's token: without it, who reaches Ray's ports runs code as you. ``joining``: a cluster that is there."""
    name = "ray token"
    if environment.get("RAY_AUTH_MODE", "").lower() == "disabled":
        return doubt(name, "switched off by RAY_AUTH_MODE", "unset it: whoever reaches Ray's ports runs code as you")
    if environment.get("RAY_AUTH_TOKEN"):
        return good(name, "given in RAY_AUTH_TOKEN")
    given = environment.get("RAY_AUTH_TOKEN_PATH")
    base = environment.get("HOME") or str(Path.home())
    path = Path(given) if given else Path(base) / ".ray" / "auth_token"
    try:
        text, mode = path.read_text(encoding="utf-8").strip(), path.stat().st_mode
    except FileNotFoundError:
        if given:
            return bad(name, f"{path} (RAY_AUTH_TOKEN_PATH) does not exist", "copy it from the cluster's head node")
        if joining:
            advice = "if the cluster asks for one, copy the head node's ~/.ray/auth_token here"
            return doubt(name, f"there is none in {path}", advice)
        return good(name, f"Ray will make one in {path}")
    except (OSError, UnicodeDecodeError) as error:
        return bad(name, f"{path} cannot be read: {_words(error)}", "mend its permissions, or set RAY_AUTH_TOKEN_PATH")
    if not text:
        return bad(name, f"{path} is empty", "remove it; `ray get-auth-token --generate` makes a new one")
    if mode & (stat.S_IRGRP | stat.S_IROTH) and _others_come_to(path.parent):
        return doubt(name, f"{path} can be read by others", f"chmod 600 {path}")
    return good(name, f"in {path}")


def _others_come_to(folder: Path) -> bool:
    """Whether every folder on the way lets others, or the group, pass."""
    whole = (folder.resolve(), *folder.resolve().parents)
    return all(one.stat().st_mode & (stat.S_IXGRP | stat.S_IXOTH) for one in whole)


def temporary_folder(environment: Mapping[str, str], *, ray_starts: bool) -> Finding:
    """Where Ray keeps its files. ``ray_starts``: it will make its sockets there, whose paths must be short."""
    name = "temporary folder"
    folder = Path(environment.get("RAY_TMPDIR") or environment.get("TMPDIR") or "/tmp")
    problem = write_problem(folder)
    if problem is not None:
        return bad(name, f"{folder} {problem}", "set TMPDIR to a folder that can be written")
    length = len(os.fsencode(folder / _SESSION))
    if ray_starts and length > SOCKET_BYTES:
        most = SOCKET_BYTES - len(_SESSION) - 1
        found = f"{folder} is too long a path: Ray's sockets below it would take {length} bytes of {SOCKET_BYTES}"
        return bad(name, found, f"export RAY_TMPDIR=/tmp (at most {most} bytes)")
    return good(name, f"{folder} can be written" + (f", socket paths take {length} bytes" if ray_starts else ""))


def shared_memory(folder: Path = Path("/dev/shm")) -> Finding:
    """Ray's object store and the processes of a group of workers use it."""
    name = "shared memory"
    try:
        status = os.statvfs(folder)
    except OSError as error:
        return bad(name, f"{folder}: {_words(error)}", "mount it as tmpfs (in a container: --shm-size=2g)")
    free = status.f_frsize * status.f_bavail
    if free < SHARED_BYTES:
        advice = f"{size_text(SHARED_BYTES)} or more spare Ray a slow disk (in a container: --shm-size=2g)"
        return doubt(name, f"{size_text(free)} are free in {folder}", advice)
    return good(name, f"{size_text(free)} are free in {folder}")


def descriptors() -> Finding:
    """Ray raises the soft limit as far as the hard one lets it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
        advice = "raise it (ulimit -Hn 65536, LimitNOFILE=, or in a container --ulimit nofile=65536)"
        return doubt("file descriptors", f"at most {hard} of them may be open", advice)
    return good("file descriptors", "no limit" if hard == resource.RLIM_INFINITY else f"up to {hard}")


def cores(threads: int | None, groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Finding:
    """Cores that may be used, against ``threads``, those that all slots will keep busy (None: as many as cores)."""
    name, there = "cores", len(os.sched_getaffinity(0))
    wanted = there if threads is None else threads
    limits = [float(q) / float(p) for text in _limits(groups, own, "cpu.max") for q, p in [text.split()] if q != "max"]
    quota = min(limits, default=float(there))
    shown = f"{there} to use" + (f", of which a quota leaves {quota:g}" if quota < there else "")
    if wanted > quota:
        fits = max(1, int(quota))
        advice = (
            f"threads that share a core cost a factor of ten: ask for {fits} (--parallel, resources.cpus_per_worker)"
        )
        if threads is None:
            advice = f"threads that share a core cost a factor of ten: start the sweep under `taskset -c 0-{fits - 1}`"
        return doubt(name, f"{shown}, {wanted} threads", advice)
    load = os.getloadavg()[0]
    if load > quota:
        return doubt(name, f"{shown}, {wanted} threads, but the load is {load:.1f}", "others are at work here: wait")
    return good(name, f"{shown}, {wanted} threads")


def memory(
    slots: int,
    groups: Path = Path("/sys/fs/cgroup"),
    own: Path = Path("/proc/self/cgroup"),
    system: Path = Path("/proc/meminfo"),
) -> Finding:
    """Memory that is free, against what ``slots`` trials at a time take at least."""
    lines = dict(line.split(":", 1) for line in system.read_text(encoding="ascii").splitlines() if ":" in line)
    free = 1024 * int(lines["MemAvailable"].split()[0])
    for limit, used in zip(_limits(groups, own, "memory.max"), _limits(groups, own, "memory.current"), strict=False):
        if limit != "max":
            free = min(free, int(limit) - int(used))
    needed = slots * SLOT_BYTES
    if free < needed:
        fits = max(1, free // SLOT_BYTES)
        found = f"{size_text(free)} are free, {slots} trials at a time take about {size_text(needed)}"
        return doubt("memory", found, f"--parallel {fits}, or more memory")
    return good("memory", f"{size_text(free)} are free")


def _limits(groups: Path, own: Path, name: str) -> list[str]:
    """What the control groups (version 2) around this process say, from its own upwards."""
    try:
        inside = next(line[3:] for line in own.read_text(encoding="utf-8").splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return []
    here = groups / inside.strip("/")
    found = []
    for folder in (here, *here.parents):
        if not folder.is_relative_to(groups):
            break
        try:
            found.append((folder / name).read_text(encoding="ascii").strip())
        except OSError:  # the topmost one has no limits
            continue
    return found


def loopback() -> Finding:
    """Ray's processes, and those of a group of workers, talk through sockets of this machine."""
    name, host = "loopback", socket.gethostname()
    try:
        with socket.socket() as listening, socket.socket() as calling:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            calling.settimeout(2.0)
            calling.connect(listening.getsockname())
    except OSError as error:
        return bad(name, f"127.0.0.1 does not answer: {_words(error)}", "bring the interface up: ip link set lo up")
    try:
        address = socket.gethostbyname(host)
    except OSError:
        advice = f"a line `127.0.1.1 {host}` in /etc/hosts: the processes of one trial find each other by it"
        return doubt(name, f"the machine's own name {host} has no address", advice)
    return good(name, f"127.0.0.1 answers, {host} is {address}")


def write_problem(folder: Path) -> str | None:
    """Why no file can be made in ``folder``, in words; None when one can (it is removed again)."""
    try:
        with tempfile.NamedTemporaryFile(prefix=".doctor-", dir=folder) as file:
            file.write(b"written by sweeps/doctor.py\n")
            file.flush()
            os.fsync(file.fileno())
    except FileNotFoundError:
        return "does not exist" if not folder.exists() else "cannot be written"
    except OSError as error:
        return f"cannot be written: {_words(error)}"
    return None


def _words(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
