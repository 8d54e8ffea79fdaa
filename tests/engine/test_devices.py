"""The lease of a GPU, with devices that are only names: the lock is what counts."""

import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from effective_lr.engine import devices
from effective_lr.engine.devices import lease, on_device, visible_devices
from effective_lr.errors import UserError
from shared import ENVIRONMENT


def test_each_device_gets_one_job_before_any_gets_two(tmp_path: Path) -> None:
    with ExitStack() as held:
        found = [held.enter_context(lease(["a", "b", "c"], 3, tmp_path)) for _ in range(9)]
        assert found == [0, 1, 2, 0, 1, 2, 0, 1, 2]


def test_no_device_has_more_jobs_than_slots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with ExitStack() as first, ExitStack() as second, ExitStack() as third:
        assert [one.enter_context(lease(["a", "b"], 1, tmp_path)) for one in (first, second)] == [0, 1]
        monkeypatch.setattr(devices.time, "sleep", lambda seconds: second.close())
        assert third.enter_context(lease(["a", "b"], 1, tmp_path)) == 1
        assert capsys.readouterr().out == "waiting for a slot of GPU a, b (1 each)\n"


def test_death_of_a_holder_frees_its_slot(tmp_path: Path) -> None:
    program = "import os; from pathlib import Path; from effective_lr.engine.devices import lease\n"
    program += f"with lease(['a'], 1, Path({str(tmp_path)!r})): os._exit(9)"
    assert subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT).returncode == 9
    with lease(["a"], 1, tmp_path) as index:
        assert index == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.0.lock"]


def test_names_are_those_of_the_visible_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_devices(2) == ["0", "1"]
    for listed, names in {
        "5,7": ["5", "7"],
        "GPU-8932f937, GPU-1a": ["GPU-8932f937", "GPU-1a"],
        "MIG-GPU-8932/1/0,MIG-GPU-8932/2/0": ["MIG-GPU-8932-1-0", "MIG-GPU-8932-2-0"],
        "3,1,-1,2": ["3", "1"],
    }.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
        assert visible_devices(2) == names


def test_full_gpu_ends_in_the_number_of_slots_to_try(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for slots, advice in [(3, "gpu_slots=2"), (1, "device=cpu")]:
        with pytest.raises(UserError) as caught, on_device("cuda", slots, "my-job"):
            raise torch.OutOfMemoryError
        text = str(caught.value)
        assert "my-job" in text and "GPU 0" in text and f"gpu_slots = {slots}" in text and advice in text
