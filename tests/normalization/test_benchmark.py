"""The benchmark: its arithmetic, its verdicts, and that its pages are those of the published measurement."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from effective_lr.benchmark import laptop_run
from torch.nn import functional as F

from effective_lr import benchmark
from effective_lr.studies.normalization.data import Splits
from effective_lr.studies.normalization.networks import build_network
from shared import train_rows

ROOT = Path(__file__).parents[1]
PUBLISHED = json.loads((ROOT / "results/published/benchmark.json").read_text())


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


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
    assert not any(target["met"] for target in benchmark.targets(slow))
    assert benchmark.page(slow).count("**missed**") == len(benchmark.targets(slow))


def test_every_number_follows_the_measurement(tmp_path: Path) -> None:
    def scaled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: scaled(item) for key, item in value.items()}
        if isinstance(value, list):
            return [scaled(item) for item in value]
        return 1.37 * value if isinstance(value, float) else value

    table, other = benchmark.table(PUBLISHED), benchmark.table(scaled(PUBLISHED))
    speeds = [row["images_per_second"] for row in PUBLISHED["speed"]["scripts"]]
    for speed in speeds:
        assert f"{speed:,.0f}".replace(",", r"\,") in table
        assert f"{1.37 * speed:,.0f}".replace(",", r"\,") in other
    benchmark.figure(PUBLISHED, tmp_path / "speed.png")
    assert (tmp_path / "speed.png").stat().st_size > 10_000


def test_usual_model_is_the_same_function() -> None:
    run = laptop_run(14)
    images = torch.randn(64, 1, 14, 14, generator=torch.Generator().manual_seed(0))
    ours, theirs = build_network(run), benchmark.plain_model(run)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)


def test_usual_script_trains_as_ours_does(small_splits: Splits) -> None:
    """One step of both optimizers from one start, on one batch."""
    run = laptop_run(14, train_size=64, batch_size=64, statistics_size=64, steps=2, probes=2, evaluations=1)
    held = small_splits.subset(64, 30, 40)
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
