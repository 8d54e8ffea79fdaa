"""The lease of a GPU, with devices that are only names: the lock is what counts."""

import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from effective_lr.engine.devices import on_device, visible_devices
from effective_lr.errors import UserError
from shared import ENVIRONMENT

HOLDER = """
import sys, time
from pathlib import Path
from effective_lr.engine.devices import lease
with lease(sys.argv[2].split(","), int(sys.argv[3]), Path(sys.argv[1])) as index:
    print("holds", index, flush=True)
    sys.stdin.readline()
"""
Holder = subprocess.Popen[str]


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Callable[[str, int], Holder]]:
    """Start a process that takes a lease and holds it until it reads a line."""
    started: list[Holder] = []

    def start(devices: str, slots: int) -> Holder:
        command = [sys.executable, "-c", HOLDER, str(tmp_path), devices, str(slots)]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=ENVIRONMENT))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def line(process: Holder) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("slots", [1, 3])
def test_no_device_has_more_jobs_than_slots(slots: int, holder: Callable[[str, int], Holder]) -> None:
    holders = [holder("a,b", slots) for _ in range(2 * slots + 1)]
    told = [line(process) for process in holders]
    wait = f"waiting for a slot of GPU a, b ({slots} each)"
    assert Counter(told) == {"holds 0": slots, "holds 1": slots, wait: 1}
    [waiting] = [process for process, text in zip(holders, told, strict=True) if text.startswith("waiting")]
    leaving = next(process for process in holders if process is not waiting)
    index = told[holders.index(leaving)]
    leaving.communicate("\n")
    assert line(waiting) == index


def test_each_device_gets_one_job_before_any_gets_two(holder: Callable[[str, int], Holder]) -> None:
    assert [line(holder("a,b,c", 3)) for _ in range(6)] == [f"holds {index}" for index in (0, 1, 2, 0, 1, 2)]


def test_death_of_a_holder_frees_its_slot(holder: Callable[[str, int], Holder], tmp_path: Path) -> None:
    first = holder("a", 1)
    assert line(first) == "holds 0"
    second = holder("a", 1)
    assert re.match("waiting", line(second))
    first.kill()
    start = time.monotonic()
    assert line(second) == "holds 0"
    assert time.monotonic() - start < 5
    assert [path.name for path in tmp_path.iterdir()] == ["a.0.lock"]


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        (None, ["0", "1"]),
        ("5,7", ["5", "7"]),
        ("GPU-8932f937, GPU-1a", ["GPU-8932f937", "GPU-1a"]),
        ("MIG-GPU-8932/1/0,MIG-GPU-8932/2/0", ["MIG-GPU-8932-1-0", "MIG-GPU-8932-2-0"]),
        ("3,1,-1,2", ["3", "1"]),
    ],
)
def test_names_are_those_of_the_visible_devices(
    listed: str | None, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert visible_devices(2) == names


def test_full_gpu_ends_in_the_number_of_slots_to_try(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for slots, advice in [(3, "gpu_slots=2"), (1, "device=cpu")]:
        with pytest.raises(UserError) as caught, on_device("cuda", slots, "my-shard"):
            raise torch.OutOfMemoryError
        told = str(caught.value)
        assert "my-shard" in told and "GPU 0" in told and f"gpu_slots = {slots}" in told and advice in told
