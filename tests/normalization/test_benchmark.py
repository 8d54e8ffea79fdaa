"""The benchmark: what it compares trains as the study does, and what is published is a real measurement."""

import json
import runpy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from effective_lr.studies.normalization.data import Splits
from shared import ROOT, STUDY, train_rows

BENCHMARK = runpy.run_path(str(ROOT / "benchmarks" / "normalization.py"))


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
