"""GPUs as the driver library, CUDA_VISIBLE_DEVICES, Ray and torch see them; the library is a fake."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.doctor_checks import gpus
from sweeps.doctor_checks.gpus import Driver, Gpu

FREE = Gpu(name="NVIDIA X", uuid="GPU-aaaa-1", total=80 * 10**9, free=79 * 10**9)
HELD = Gpu(name="NVIDIA X", uuid="GPU-bbbb-2", total=80 * 10**9, free=10 * 10**9)
DRIVER = Driver(version="570.1", cuda=(12, 8), gpus=(FREE, HELD))
FAKE_LIBRARY = """\
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory;
const char *nvmlErrorString(int code) { return "Driver/library version mismatch"; }
int nvmlInit_v2(void) { return INIT; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 2; return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *n) { *n = 12080; return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned n) { strcpy(text, "570.1"); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **device) { *device = (void *)(long)(i + 1); return 0; }
int nvmlDeviceGetName(void *device, char *text, unsigned n) { strcpy(text, "NVIDIA X"); return 0; }
int nvmlDeviceGetUUID(void *device, char *text, unsigned n)
{ strcpy(text, device == (void *)1 ? "GPU-aaaa-1" : "GPU-bbbb-2"); return 0; }
int nvmlDeviceGetMemoryInfo(void *device, memory *m)
{ m->total = 80000000000ULL; m->free = device == (void *)1 ? 79000000000ULL : 10000000000ULL; return 0; }
"""


def test_the_driver_library_is_read(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler makes the fake library")
    (tmp_path / "fake.c").write_text(FAKE_LIBRARY)
    for code in (0, 18):
        command = [compiler, "-shared", "-fPIC", f"-DINIT={code}", "-o", str(tmp_path / f"{code}.so")]
        subprocess.run([*command, str(tmp_path / "fake.c")], check=True, timeout=60)
    assert gpus.read_driver(str(tmp_path / "0.so")) == DRIVER
    refused = gpus.read_driver(str(tmp_path / "18.so"))
    assert refused == Driver(problem="Driver/library version mismatch (NVML 18)")
    assert gpus.read_driver(str(tmp_path / "none.so")) is None


@pytest.mark.parametrize(
    ("driver", "shown", "level", "found", "usable"),
    [
        (None, None, "ok", "none (there is no NVIDIA driver library)", ()),
        (None, "", "ok", "none", ()),
        (None, "0", "FAIL", "CUDA_VISIBLE_DEVICES=0, but there is no NVIDIA driver library", ()),
        (Driver(version="1"), "0", "FAIL", "driver 1 shows no GPU", ()),
        (Driver(problem="mismatch (NVML 18)"), None, "FAIL", "refuses: mismatch", ()),
        (DRIVER, None, "ok", "2 x NVIDIA X, driver 570.1", (FREE, HELD)),
        (DRIVER, "1", "ok", "of which CUDA_VISIBLE_DEVICES=1", (HELD,)),
        (DRIVER, "GPU-bbbb", "ok", "of which", (HELD,)),
        (DRIVER, "-1", "warn", "all hidden", ()),
        (DRIVER, "", "warn", "all hidden", ()),
        (DRIVER, "0, 2", "FAIL", "names 2, the driver shows 0 to 1", ()),
        (DRIVER, "GPU-cccc", "FAIL", "names GPU-cccc", ()),
        (DRIVER, "MIG-1234", "ok", "parts of them", ()),
    ],
)
def test_what_is_visible_is_what_there_is(
    driver: Driver | None, shown: str | None, level: str, found: str, usable: tuple[Gpu, ...]
) -> None:
    (finding,), chosen = gpus.visible(driver, shown)
    assert finding.level == level
    assert found in finding.found
    assert tuple(chosen) == usable


def test_ray_must_not_promise_more_than_there_is() -> None:
    assert gpus.promised([FREE, HELD], 2.0) == []
    assert gpus.promised([FREE], 2.0)[0].level == "FAIL"
    assert gpus.promised([FREE, HELD], 1.0)[0].level == "warn"


def test_gpu_memory_that_others_hold() -> None:
    assert gpus.memory([]) == []
    assert gpus.memory([FREE])[0].found == "79.0 GB are free on each"
    (found,) = gpus.memory([FREE, HELD])
    assert (found.level, found.found) == ("warn", "GPU 1: 10.0 GB of 80.0 GB are free")


@pytest.mark.parametrize(
    ("cuda", "hip", "usable", "level"),
    [
        (None, None, [], "ok"),
        ("12.6", None, [], "ok"),
        (None, None, [FREE], "FAIL"),
        ("12.6", None, [FREE], "ok"),
        ("12.9", None, [FREE], "warn"),
        ("13.0", None, [FREE], "FAIL"),
        (None, "6.2", [FREE], "ok"),
    ],
)
def test_torch_must_be_built_for_the_driver(cuda: str | None, hip: str | None, usable: list[Gpu], level: str) -> None:
    assert gpus.torch_build(DRIVER, usable, {"version": "2.13.0", "cuda": cuda, "hip": hip}).level == level


def test_torch_tells_its_build_without_being_imported() -> None:
    script = "import sys; from sweeps.doctor_checks.gpus import read_torch_build as read; "
    script += "print(read(), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    import torch

    expected = {"version": torch.__version__, "cuda": torch.version.cuda, "hip": torch.version.hip}
    assert done.stdout.strip() == f"{expected} False"


def test_torch_counts_and_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "_PROBE", 'print(\'{"available": true, "sums": [1024.0, 1024.0]}\')')
    assert gpus.torch_sees(2, os.environ).level == "ok"
    assert gpus.torch_sees(3, os.environ).found == "it sees 2 of 3"
    monkeypatch.setattr(gpus, "_PROBE", "raise RuntimeError('CUDA error: no kernel image')")
    assert "no kernel image" in gpus.torch_sees(1, os.environ).found
    monkeypatch.setattr(gpus, "_PROBE", "import time; time.sleep(9)")
    assert gpus.torch_sees(1, os.environ, seconds=0.2).found == "no answer within 0.2 s"


@pytest.mark.slow
def test_torch_itself_is_asked() -> None:
    import torch

    seen = torch.cuda.device_count()
    assert gpus.torch_sees(seen + 1, os.environ).found == f"it sees {seen} of {seen + 1}"
