"""benchmarks/gpu.py, as far as a CPU can tell: it trains what the package trains, and its stacked runs are the same."""

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from effective_lr.studies.normalization import images_in_all
from effective_lr.studies.normalization.networks import build_network, normalized_layers
from effective_lr.studies.normalization.optimizers import Optimizer, project
from shared import CPU, ENVIRONMENT, ROOT, STUDY, make_run

SCRIPT = ROOT / "benchmarks" / "gpu.py"
spec = importlib.util.spec_from_file_location("gpu_script", SCRIPT)
assert spec is not None and spec.loader is not None
gpu = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = gpu  # where its dataclasses look for their types
spec.loader.exec_module(gpu)

STEPS = 20


@pytest.mark.parametrize("optimizer", gpu.RATES)
@pytest.mark.parametrize("normalization", gpu.NORMALIZATIONS)
def test_its_training_is_that_of_the_package(normalization: str, optimizer: str) -> None:
    setting = gpu.Setting(normalization, optimizer, width=3, side=16, batch_size=16, images=96)
    lr, affine_lr = gpu.RATES[optimizer]
    is_projected = optimizer == "projected"
    run = make_run(
        dataset="cifar10", resolution=16, width=3, normalization=normalization, projected=is_projected, lr=lr,
        optimizer="sgd" if is_projected else optimizer, affine_lr=affine_lr, l2=gpu.PENALTIES[0], seed=setting.seed,
    )  # fmt: skip
    network = build_network(run, torch.float64)
    layers = [layer for _, layer in normalized_layers(network)]
    rule = Optimizer(run, network)
    training = gpu.trainer(setting, dtype=torch.float64)
    data = gpu.Data.make(setting, torch.float64, CPU)
    for batch, _ in zip(data.batches(setting), range(STEPS), strict=False):
        images, labels = data.images[batch], data.labels[batch]
        for layer, weight in zip(layers, training.weights, strict=True):
            torch.testing.assert_close(weight, layer.weight, rtol=1e-9, atol=1e-12)
        loss = F.cross_entropy(network(images), labels)
        rule.zero_grad()
        loss.backward()
        rule.step()
        if is_projected:
            project(network)
        torch.testing.assert_close(training.step(images, labels), loss.detach().view(1), rtol=1e-9, atol=0)


def test_it_counts_operations_as_the_plan_does() -> None:
    run = make_run(dataset="cifar10", resolution=32, width=64, batch_size=96)
    assert gpu.operations_per_image(gpu.FULL) == pytest.approx(STUDY.operations(run) / images_in_all(run))


def test_what_fails_or_comes_too_late_is_told_and_the_rest_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> float:
        raise torch.OutOfMemoryError("out of memory")

    report = gpu.Report()
    report.rate("eager", 1, 1, fails)
    report.rate("eager", 1, 1, lambda: 5.0)
    report.end = time.monotonic() - 1
    report.rate("graph", 1, 1, lambda: 5.0)
    assert [row["images_per_second"] for row in report.speeds] == [5.0]
    told = capsys.readouterr().out
    assert "out of memory" in told and "no time was left" in told and len(report.missing) == 2


def script(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, *words]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_it_says_how_to_try_it() -> None:
    result = script()
    assert result.returncode and "--device cpu --smoke" in result.stderr


def test_a_file_that_is_no_plan_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"scale": "paper", "studies": {}}')
    result = script("--device", "cpu", "--smoke", "--plan", tmp_path / "plan.json")
    assert result.returncode and "plan.json: no plan of normalization" in result.stderr


@pytest.mark.slow
def test_its_smoke_form_runs_on_a_cpu(tmp_path: Path) -> None:
    plan = [sys.executable, "-m", "effective_lr", "plan", "--scale", "paper", "--study", "normalization"]
    subprocess.run([*plan, "--json", "results/plan.json"], cwd=tmp_path, env=ENVIRONMENT, check=True)
    files = ("--plan", tmp_path / "results" / "plan.json", "--output", tmp_path / "gpu.json")
    result = script("--device", "cpu", "--smoke", *files)
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())

    compared = [(row["what"], row["normalization"], row["optimizer"]) for row in found["agreement"]]
    kinds = ("stacked and alone, float64, CPU", "eager on device and CPU, float64")
    assert len(compared) == len(set(compared)) == len(kinds) * len(gpu.NORMALIZATIONS) * len(gpu.RATES)
    assert {what for what, *_ in compared} == set(kinds)
    measured = [(row["way"], row["processes"], row["networks"]) for row in found["speeds"]]
    stacked = [("stacked, eager", 1, networks) for networks in (2, 3)]
    assert measured == [("eager", 1, 1), *stacked, *(("processes, eager", count, 1) for count in (1, 2))]
    assert found["not_measured"] == ["graph: a CPU has no CUDA graphs"]
    assert "operations_per_second" not in found  # a plan must not reckon with a trial

    left = json.loads((tmp_path / "results" / "plan.json").read_text())["studies"]["normalization"]
    hours = left["operations"] / found["operations_per_image"] / 3600
    assert [row["hours"] * row["images_per_second"] for row in found["costs"]] == pytest.approx([hours] * 5)
