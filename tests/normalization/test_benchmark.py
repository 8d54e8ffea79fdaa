"""The benchmark: its verdicts, that it compares equals, and that its page is that of the published measurement."""

import copy
import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from effective_lr.studies.normalization.data import Splits
from effective_lr.studies.normalization.networks import build_network
from shared import ROOT, STUDY, train_rows

PUBLISHED = json.loads((ROOT / "results" / "published" / STUDY.name / "benchmark.json").read_text())
spec = importlib.util.spec_from_file_location("benchmark", ROOT / "benchmarks" / "normalization.py")
assert spec is not None and spec.loader is not None
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)


def test_page_is_that_of_the_published_measurement() -> None:
    assert (ROOT / "docs/performance.md").read_text() == benchmark.page(PUBLISHED), "type `make pages`"


def test_published_measurement_is_a_real_one() -> None:
    machine = PUBLISHED["machine"]
    assert not machine["quick"] and machine["cores"] >= 2 and machine["commit"] and machine["date"]
    assert all(len(row["rounds"]) == benchmark.ROUNDS for row in PUBLISHED["speed"]["scripts"])


def test_slower_measurement_misses_its_targets() -> None:
    slow = copy.deepcopy(PUBLISHED)
    for row in slow["speed"]["scripts"]:
        if row["script"] == "ours":
            row["images_per_second"] /= 100
    slow["errors"]["difference"] = 100.0
    slow["shard"]["other_seconds"] = slow["shard"]["seconds"]
    slow["workflow"]["plans"][-1]["seconds"] = slow["workflow"]["redraw_seconds"] = 1000.0
    slow["workflow"]["nothing_to_do_seconds"] = 1000.0
    slow["verdicts"] = {"minutes": 1000.0}
    assert not any(target["met"] for target in benchmark.targets(slow))
    assert benchmark.page(slow).count("**missed**") == len(benchmark.targets(slow))


def test_figure_is_drawn(tmp_path: Path) -> None:
    benchmark.draw(PUBLISHED, tmp_path / "speed.png")
    assert (tmp_path / "speed.png").stat().st_size > 10_000


def test_usual_model_is_the_same_function() -> None:
    run = benchmark.laptop_run(14)
    images = torch.randn(64, 1, 14, 14, generator=torch.Generator().manual_seed(0))
    ours, theirs = build_network(run), benchmark.plain_model(run)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)


def test_usual_script_trains_as_ours_does(small_splits: Splits) -> None:
    """One step of both optimizers from one start, on one batch."""
    run = benchmark.laptop_run(14, train_size=64, batch_size=64, statistics_size=64, steps=2, probes=2, evaluations=1)
    held = replace(
        small_splits, train_images=small_splits.train_images[:64], train_labels=small_splits.train_labels[:64]
    )
    model = benchmark.plain_model(run).double()
    optimizer = benchmark.plain_optimizer(run, model)
    losses = []
    for _ in range(2):  # the only batch holds all images: their order does not matter
        loss = F.cross_entropy(model(held.train_images), held.train_labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    small = run.model_copy(update={"validation_size": 30, "test_size": 40})
    rows = train_rows(small, held, torch.float64)
    assert [value for _, _, what, value in rows if what == "train_loss"] == pytest.approx(losses, rel=1e-5)
