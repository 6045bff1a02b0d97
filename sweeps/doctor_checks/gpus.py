"""GPUs: what the driver library shows, what of it may be used, and whether the installed torch can use it."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeps.doctor_checks.findings import Finding, bad, doubt, good, size_text

VISIBLE = "CUDA_VISIBLE_DEVICES"
_LIBRARY = "libnvidia-ml.so.1"
_NAME_BYTES = 96
_BUSY_SHARE = 0.1
"""A driver keeps a little of every GPU; what is taken beyond this is somebody's."""
_PROBE_SECONDS = 60.0
_PROBE = """\
import json, torch
sums = [float(torch.ones(1024, device=f"cuda:{n}").sum()) for n in range(torch.cuda.device_count())]
print(json.dumps({"available": torch.cuda.is_available(), "sums": sums}))
"""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One device: bytes of memory in all, and free."""

    name: str
    uuid: str
    total: int
    free: int


@dataclass(frozen=True, kw_only=True)
class Driver:
    """What NVIDIA's driver library says: the newest CUDA it serves, its devices, or why it says nothing."""

    version: str = ""
    cuda: tuple[int, int] = (0, 0)
    gpus: tuple[Gpu, ...] = ()
    problem: str = ""


class _Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


def read_driver(library: str = _LIBRARY) -> Driver | None:
    """Ask the driver library, which opens no CUDA context; None where there is none."""
    try:
        nvml = ctypes.CDLL(library)
    except OSError:
        return None
    nvml.nvmlErrorString.restype = ctypes.c_char_p
    code = nvml.nvmlInit_v2()
    if code != 0:
        return Driver(problem=f"{nvml.nvmlErrorString(code).decode(errors='replace')} (NVML {code})")
    try:
        count, cuda = ctypes.c_uint(), ctypes.c_int()
        version = ctypes.create_string_buffer(_NAME_BYTES)
        nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        nvml.nvmlSystemGetCudaDriverVersion_v2(ctypes.byref(cuda))
        nvml.nvmlSystemGetDriverVersion(version, _NAME_BYTES)
        return Driver(
            version=version.value.decode(errors="replace"),
            cuda=(cuda.value // 1000, cuda.value % 1000 // 10),
            gpus=tuple(_gpu(nvml, index) for index in range(count.value)),
        )
    finally:
        nvml.nvmlShutdown()


def _gpu(nvml: ctypes.CDLL, index: int) -> Gpu:
    handle, memory = ctypes.c_void_p(), _Memory()
    name, uuid = ctypes.create_string_buffer(_NAME_BYTES), ctypes.create_string_buffer(_NAME_BYTES)
    nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle))
    nvml.nvmlDeviceGetName(handle, name, _NAME_BYTES)
    nvml.nvmlDeviceGetUUID(handle, uuid, _NAME_BYTES)
    nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
    texts = [text.value.decode(errors="replace") for text in (name, uuid)]
    return Gpu(name=texts[0], uuid=texts[1], total=int(memory.total), free=int(memory.free))


def visible(driver: Driver | None, shown: str | None) -> tuple[list[Finding], list[Gpu]]:
    """Findings about what is there and about ``shown`` (CUDA_VISIBLE_DEVICES; None: not set), and what may be used."""
    name = "gpus"
    entries = None if shown is None else [part.strip() for part in shown.split(",") if part.strip() not in ("", "-1")]
    if driver is not None and driver.problem:
        advice = "load the driver, or restart the machine after a driver update (nvidia-smi says the same)"
        return [bad(name, f"the driver library refuses: {driver.problem}", advice)], []
    if driver is None or not driver.gpus:
        why = "there is no NVIDIA driver library" if driver is None else f"driver {driver.version} shows no GPU"
        if entries:
            advice = f"unset {VISIBLE}, or let the GPUs in (in a container: --gpus all)"
            return [bad(name, f"{VISIBLE}={shown}, but {why}", advice)], []
        return [good(name, f"none ({why}): trials train on the CPU")], []
    there = f"{len(driver.gpus)} x {driver.gpus[0].name}, driver {driver.version}"
    if entries is None:
        return [good(name, there)], list(driver.gpus)
    if not entries:
        return [doubt(name, f"{there}, all hidden by {VISIBLE}={shown!r}", f"unset {VISIBLE} to use them")], []
    if any(entry.startswith("MIG-") for entry in entries):
        return [good(name, f"{there}, parts of them in {VISIBLE}")], []
    chosen = [_match(entry, driver.gpus) for entry in entries]
    wrong = [entry for entry, gpu in zip(entries, chosen, strict=True) if gpu is None]
    if wrong:
        found = f"{VISIBLE}={shown} names {', '.join(wrong)}, the driver shows 0 to {len(driver.gpus) - 1}"
        return [bad(name, found, f"correct {VISIBLE}: CUDA ignores what follows a wrong entry")], []
    return [good(name, f"{there}, of which {VISIBLE}={shown}")], [gpu for gpu in chosen if gpu is not None]


def _match(entry: str, gpus: Sequence[Gpu]) -> Gpu | None:
    if entry.isdigit():
        return gpus[int(entry)] if int(entry) < len(gpus) else None
    return next((gpu for gpu in gpus if entry.startswith("GPU-") and gpu.uuid.startswith(entry)), None)


def promised(gpus: Sequence[Gpu], by_ray: float) -> list[Finding]:
    """Whether Ray hands out as many GPUs on a node as its driver shows."""
    if by_ray > len(gpus):
        advice = f"start Ray there with --num-gpus={len(gpus)}, or mend the driver"
        return [bad("gpus", f"Ray offers {by_ray:g}, the driver shows {len(gpus)}", advice)]
    if by_ray < len(gpus):
        return [doubt("gpus", f"Ray offers {by_ray:g} of {len(gpus)}", f"ray start --num-gpus={len(gpus)} uses all")]
    return []


def memory(gpus: Sequence[Gpu]) -> list[Finding]:
    """What others hold of the GPUs that may be used."""
    if not gpus:
        return []
    busy = [
        f"GPU {number}: {size_text(gpu.free)} of {size_text(gpu.total)} are free"
        for number, gpu in enumerate(gpus)
        if gpu.total - gpu.free > _BUSY_SHARE * gpu.total
    ]
    if busy:
        return [doubt("gpu memory", ", ".join(busy), f"see nvidia-smi for who holds it, or choose by {VISIBLE}")]
    return [good("gpu memory", f"{size_text(min(gpu.free for gpu in gpus))} are free on each")]


def torch_build(driver: Driver | None, gpus: Sequence[Gpu], build: Mapping[str, str | None]) -> Finding:
    """Whether the installed torch (``version``, ``cuda``, ``hip``) is built for what the driver serves."""
    name, said = "torch build", f"torch {build['version']}"
    if build["hip"] is not None:
        return good(name, f"{said}, built for ROCm {build['hip']}")
    cuda = build["cuda"]
    if not gpus or driver is None:
        return good(name, f"{said}, " + ("built for the CPU" if cuda is None else f"built for CUDA {cuda}"))
    if cuda is None:
        advice = "install PyTorch's CUDA build of the same version"
        return bad(name, f"{said} is built for the CPU, and there are GPUs", advice)
    major, minor = (int(part) for part in cuda.split(".")[:2])
    serves = f"driver {driver.version} serves CUDA {driver.cuda[0]}.{driver.cuda[1]}"
    if major > driver.cuda[0]:
        return bad(
            name, f"{said} is built for CUDA {cuda}, {serves}", "update the driver, or install an older CUDA build"
        )
    if (major, minor) > driver.cuda:
        return doubt(name, f"{said} is built for CUDA {cuda}, {serves}", "it mostly works; a newer driver is safer")
    return good(name, f"{said}, built for CUDA {cuda}, {serves}")


def read_torch_build() -> dict[str, str | None] | None:
    """What the installed torch says of itself, read without importing it; None where there is none."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    text = (Path(found.origin).parent / "version.py").read_text(encoding="utf-8")
    said = dict(re.findall(r"^(__version__|cuda|hip)\b[^=\n]*= *(.+)$", text, flags=re.MULTILINE))
    plain = {key: None if value.strip() == "None" else value.strip().strip("'\"") for key, value in said.items()}
    return {"version": plain.get("__version__"), "cuda": plain.get("cuda"), "hip": plain.get("hip")}


def torch_sees(expected: int, environment: Mapping[str, str], seconds: float = _PROBE_SECONDS) -> Finding:
    """Let torch, in a process of its own, count the GPUs and add up something on each."""
    name = "torch on the gpus"
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return bad(name, f"no answer within {seconds:g} s", "see whether another program holds the GPUs (nvidia-smi)")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return bad(name, last[:200], "the driver and torch do not go together: see the lines above")
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    if not answer["available"] or answer["sums"] != [1024.0] * expected:
        found = f"it sees {len(answer['sums'])} of {expected}"
        return bad(name, found, "the driver and torch do not go together: see the lines above")
    return good(name, f"{expected} compute")
