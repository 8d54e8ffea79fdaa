"""The benchmarks: the usual script trains as the study does, and benchmarks/gpu.py as far as a CPU can show it."""

import json
import math
import re
import runpy
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from effective_lr.studies.normalization.data import Splits
from shared import ENVIRONMENT, ROOT, STUDY, train_rows

BENCHMARK, GPU = runpy.run_path(str(ROOT / "benchmarks/normalization.py")), ROOT / "benchmarks/gpu.py"


def test_published_measurement_is_a_real_one() -> None:
    found = json.loads((ROOT / "results" / "published" / STUDY.name / "benchmark.json").read_text())
    machine = found["machine"]
    assert not machine["quick"] and machine["cores"] >= 2 and machine["commit"] and machine["date"]
    assert all(len(row["rounds"]) == BENCHMARK["ROUNDS"] for row in found["speed"]["scripts"])


def test_usual_script_trains_as_ours_does(small_splits: Splits) -> None:
    """Two steps of both optimizers from one start, on one batch."""
    sizes = {"train_size": 64, "validation_size": 30, "test_size": 40, "batch_size": 64, "statistics_size": 64}
    run = BENCHMARK["laptop_run"](14, **sizes, steps=2, probes=2, evaluations=1)
    images, labels = small_splits.train_images[:64], small_splits.train_labels[:64]
    model, optimizer = BENCHMARK["plain"](run)
    model.double()
    losses = []
    for _ in range(2):  # the only batch holds all images: their order does not matter
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    rows = train_rows(run, replace(small_splits, train_images=images, train_labels=labels), torch.float64)
    assert [value for _, _, what, value in rows if what == "train_loss"] == pytest.approx(losses, rel=1e-5)


def test_a_difference_is_found() -> None:
    difference = runpy.run_path(str(GPU))["difference"]
    rows = [(1, "", "train_loss", 2.0), (1, "conv1", "norm_squared", 4.0), (1, "conv1", "beta_norm", 0.0)]
    assert difference(rows, rows) == 0
    assert difference([*rows[:1], (1, "conv1", "norm_squared", 5.0), *rows[2:]], rows) == 0.25
    assert difference([(1, "", "train_loss", math.nan), *rows[1:]], rows) == math.inf


@pytest.mark.slow
def test_it_compares_all_optimizers_and_measures_jobs_that_share_a_device() -> None:
    command = [sys.executable, GPU, "--cpu"]
    result = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    for normalization in ("batch", "weight", "layer"):
        [line] = re.findall(rf"^{normalization} .*", result.stdout, re.MULTILINE)
        assert [float(value) for value in line.split()[1:]] == [0.0] * 6
    speeds = re.findall(r"^ +(\d+) +([\d,]+) +(\S+)$", result.stdout, re.MULTILINE)
    assert [jobs for jobs, *_ in speeds] == ["1", "2"]
    assert all(float(operations) > 0 for *_, operations in speeds)
    assert "gpu_slots: " in result.stdout and "operations per second" in result.stdout
    if not torch.cuda.is_available():
        refused = subprocess.run(command[:-1], capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
        assert refused.returncode and "--cpu" in refused.stderr
