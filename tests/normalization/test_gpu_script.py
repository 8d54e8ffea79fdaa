"""benchmarks/gpu.py, as far as a CPU can show it: it runs to its end, and it sees a difference."""

import math
import re
import runpy
import subprocess
import sys

import pytest
import torch

from shared import ENVIRONMENT, ROOT

SCRIPT = ROOT / "benchmarks" / "gpu.py"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_it_names_the_option_that_tries_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT)])
    with pytest.raises(SystemExit):
        runpy.run_path(str(SCRIPT))["main"]()
    assert "--cpu" in capsys.readouterr().err


def test_a_difference_is_found() -> None:
    difference = runpy.run_path(str(SCRIPT))["difference"]
    rows = [(1, "", "train_loss", 2.0), (1, "conv1", "norm_squared", 4.0), (1, "conv1", "beta_norm", 0.0)]
    assert difference(rows, rows) == 0
    assert difference([*rows[:1], (1, "conv1", "norm_squared", 5.0), *rows[2:]], rows) == 0.25
    assert difference([(1, "", "train_loss", math.nan), *rows[1:]], rows) == math.inf


@pytest.mark.slow
def test_it_compares_all_optimizers_and_measures_jobs_that_share_a_device() -> None:
    words = [sys.executable, SCRIPT, "--cpu"]
    result = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    for normalization in ("batch", "weight", "layer"):
        [line] = re.findall(rf"^{normalization} .*", result.stdout, re.MULTILINE)
        assert [float(value) for value in line.split()[1:]] == [0.0] * 6
    speeds = re.findall(r"^ +(\d+) +([\d,]+) +(\S+)$", result.stdout, re.MULTILINE)
    assert [jobs for jobs, *_ in speeds] == ["1", "2"]
    assert all(float(operations) > 0 for *_, operations in speeds)
    assert "gpu_slots: " in result.stdout and "operations per second" in result.stdout
