"""Runs: resumed as if uninterrupted, paired, honest about divergence; splits that do not overlap; settings that make
sense."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from effective_lr.studies.norms import STUDY, bridge
from effective_lr.studies.norms import data as samples
from effective_lr.studies.norms.base import Training
from effective_lr.studies.norms.data import anova, design, simulate, split
from effective_lr.studies.norms.settings import Run, parse_arms
from effective_lr.studies.norms.training import load, train

from .conftest import CPU, measured

SMALL = {"inputs": 10, "train_size": 24, "validation_size": 10, "test_size": 20, "hidden": 3, "seed": 4}
NETWORK = {**SMALL, "kind": "network", "truth": "sparse", "rho": 0.5, "batch_size": 8, "steps": 12}
RUNS: dict[str, dict[str, Any]] = {
    "linear": {**SMALL, "kind": "linear", "truth": "low", "folds": 3, "arms": "l2 car inverse: 0.01 1"},
    "network": {**NETWORK, "arms": "none: 0; l2 l1 l1+l2 car scar inverse adaptive: 0.01 0.1"},
    "held": {**NETWORK, "kind": "bridge", "momentum": 0.0, "arms": "l2 car l1: 0 0.1"},
    "free": {**NETWORK, "kind": "bridge", "momentum": 0.0, "held": False, "arms": "l2 car l1: 0.01 0.1"},
    "walk": {"kind": "walk", "inputs": 10, "seed": 4, "walkers": 3, "steps": 12, "arms": "l2 car l1: 0.1"},
    "tuned": {
        "kind": "tuned", "correlation": "equal", "truth": "sine", "rho": 0.5, "inputs": 6, "support": 4,
        "train_size": 20, "test_size": 8, "folds": 2, "hidden": 4, "second": 3, "lr": 0.01, "batch_size": 8,
        "steps": 3, "seed": 4,
        "arms": "none: 0; ridge lasso elastic: 0.1 1; ridge+: 0.5; covridge sparridge covridge-all: 0.1 1",
    },
    "classes": {
        "kind": "tuned", "data": "leukemia", "split": "stratified", "train_size": 28, "test_size": 10, "folds": 3,
        "hidden": 3, "second": 3, "lr": 0.05, "batch_size": 16, "steps": 12, "patience": 2, "genes": 15, "seed": 4,
        "arms": "none: 0; covridge sparridge: 0.01 1",
    },
    "theorem": {
        "kind": "theorem", "inputs": 4, "rho": 0.5, "train_size": 50, "walkers": 60, "seed": 4,
        "arms": "covridge: 0.5,0.5; sparridge: 0.5,1",
    },
}  # fmt: skip


def genes() -> dict[str, Tensor]:
    """38 samples, as in the data of Golub, of 100 random genes."""
    random = np.random.default_rng(0)
    y = (np.arange(38) % 3 == 0).astype(float)
    x = random.normal(size=(38, 100))
    x[:, :20] += 2 * y[:, None]
    return {"x": torch.from_numpy(x), "y": torch.from_numpy(y)}


def trained(run: Run, saved: bytes | None = None, after: Callable[[Training], None] = lambda t: None) -> Training:
    return train(run, load(genes(), run, CPU), saved, after)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_reports_what_the_study_summarizes_and_a_resumed_one_is_the_uninterrupted_one(name: str) -> None:
    """From steps all over a run: also from the borders between folds and stages."""
    run, saved = Run(**RUNS[name]), list[bytes]()
    whole = trained(run, after=lambda training: saved.append(training.save()))
    assert whole.step == whole.steps >= len(saved) and not whole.diverged
    for state in saved[:: max(1, len(saved) // 8)]:
        resumed = trained(run, state)
        assert resumed.rows == whole.rows
        assert (resumed.step, resumed.examples) == (whole.step, whole.examples)
    assert all(np.isfinite(v) for _, _, _, v in whole.rows)
    means = {what: v for _, layer, what, v in whole.rows if layer == ""}
    assert STUDY.outcome(means)
    if name not in ("walk", "theorem"):
        assert set(STUDY.summarized) & set(means)
        tested = {layer for _, layer, what, _ in whole.rows if what.startswith("test_")}
        assert tested >= {arm.penalty if whole.run.kind == "tuned" else arm.name for arm in whole.arms}
    if isinstance(whole, bridge.BridgeTraining) and whole.run.held:
        np.testing.assert_allclose(whole.networks.w1.norm(dim=0), 1, rtol=1e-12)
    assert STUDY.operations(whole.run) > 0 and STUDY.megabytes(whole.run) >= 100


def test_l1_sets_weights_to_0_and_a_penalty_of_strength_0_is_none() -> None:
    held = measured(Run(**RUNS["held"]))
    assert held["l2/0", "test_rmse"] == pytest.approx(held["car/0", "test_rmse"], rel=1e-12)
    found = measured(Run(**RUNS["network"] | {"arms": "l1: 0 0.05 5", "steps": 200}))
    assert found["l1/0", "nonzeros"] == 30 > found["l1/0.05", "nonzeros"] > found["l1/5", "nonzeros"] == 0
    assert found["l1/0.05", "active_inputs"] <= 10 and 0 < found["l1/0.05", "precision"] <= 1
    assert ("l1/0.05", "top_share") in found and ("l1/5", "top_share") not in found  # 0 has no direction


def test_a_run_of_which_all_arms_diverge_is_a_result() -> None:
    training = trained(Run(**RUNS["network"] | {"arms": "none: 0; l2: 0.1", "lr": 1e8, "clip": 0.0, "steps": 100}))
    assert training.diverged and training.rows[-1][1:] == ("", "diverged", 1.0)


# Samples


@pytest.mark.parametrize(
    ("truth", "low", "high"),
    [("sparse", 0.5, 0.9), ("dense", 0.6, 0.9), ("high", 0.97, 1), ("low", 0, 0.05), ("prior", 0.07, 0.13)],
)
def test_truths_have_variance_1_and_lie_where_they_should(truth: str, low: float, high: float) -> None:
    """By the share of the variance that is in the five largest components."""
    run = Run(kind="linear", rho=0.9, truth=truth, arms="l2: 1", inputs=50, folds=2, seed=0)
    sigma = samples.covariance(run)
    w = samples.true_weights(run, sigma, 200, np.random.default_rng(0))
    np.testing.assert_allclose(np.einsum("ik,ij,jk->k", w, sigma, w), 1)
    d, v = np.linalg.eigh(sigma)
    assert low <= (d[:, None] * (v.T @ w) ** 2)[-5:].sum(0).mean() <= high
    assert truth != "sparse" or ((w != 0).sum(0) == 5).all()


def test_runs_of_one_seed_share_inputs_whatever_the_truth() -> None:
    high, low, other = (
        simulate(Run(**RUNS["network"] | {"truth": truth, "seed": seed}))
        for truth, seed in (("high", 4), ("low", 4), ("high", 5))
    )
    np.testing.assert_array_equal(high.train_x, low.train_x)
    assert (high.train_y != low.train_y).any() and (high.train_x != other.train_x).all()


def cooling(part: int = 0) -> Run:
    settings = {"kind": "tuned", "data": "cooling-load", "arms": "ridge: 1", "split": "disjoint", "folds": 5}
    return Run(**settings, train_size=60, test_size=192, part=part, seed=0)


def test_disjoint_sets_share_no_training_row_and_one_test_set() -> None:
    parts = [samples.chosen(cooling(part), np.zeros(768), np.random.default_rng(0)) for part in range(9)]
    assert all((part[:192] == parts[0][:192]).all() for part in parts)
    rows = np.concatenate([parts[0][:192], *(part[192:] for part in parts)])
    assert len(rows) == 192 + 9 * 60 == len(set(rows))


def test_stratified_splits_and_folds_keep_the_classes() -> None:
    run = Run(**RUNS["classes"])
    tensors = {"x": torch.zeros(38, 2), "y": torch.arange(38) >= 27}
    for seed in range(5):
        task = split(run.changed(seed=seed), tensors)
        assert 2 <= task.test_y.sum() <= 4 and len(task.test_y) == 10
        for inside, outside in samples.folds(run, task.train_y):
            assert not set(inside) & set(outside) and len(inside) + len(outside) == 28
            assert 2 <= task.train_y[outside].sum() <= 3


def test_designs_have_the_reported_covariance_signal_and_noise() -> None:
    run = Run(**RUNS["tuned"] | {"train_size": 20_000, "noise": 0.5, "rho": -0.3})
    task, linear = design(run), design(run.changed(truth="linear"))
    expected = np.eye(6)
    expected[:4, :4] += -0.3 * (1 - np.eye(4))
    np.testing.assert_allclose(np.cov(task.train_x.T), expected, atol=0.04)
    np.testing.assert_array_equal(task.train_x, linear.train_x)
    theta = np.linalg.lstsq(linear.train_x, linear.train_y, rcond=None)[0]
    np.testing.assert_allclose(theta[4:], 0, atol=0.03)
    noise = task.train_y - np.sin(task.train_x[:, :4]) @ theta[:4]
    assert noise.std() == pytest.approx(0.5, abs=0.02)
    assert np.abs(np.corrcoef(noise, task.train_x.T)[0, 1:]).max() < 0.04
    assert task.fresh_x is not None and len(task.fresh_x) == 2000


def test_genes_are_selected_by_anova_among_the_samples_that_train() -> None:
    feature_selection = pytest.importorskip("sklearn.feature_selection")
    tensors, run = genes(), Run(**RUNS["classes"])
    x, y = tensors["x"].numpy(), tensors["y"].numpy()
    np.testing.assert_allclose(anova(x, y), feature_selection.f_classif(x, y)[0], rtol=1e-6)
    x[:, 0] = 1.0
    assert anova(x, y)[0] == 0  # constant
    task = split(run, tensors)
    mine, leaked = (
        samples.selected(one, task.train_x, task.train_y, task) for one in (run, run.changed(selection="all"))
    )
    assert len(mine) == len(leaked) == 15 and set(mine) != set(leaked)
    assert (mine == np.sort(np.argsort(-anova(task.train_x, task.train_y))[:15])).all()
    assert sorted(split(run.changed(shuffled=True), tensors).all_y) == sorted(y)  # type: ignore[arg-type, type-var]


def test_a_constant_input_is_centred_and_nothing_more() -> None:
    scaled = samples.Scaler(np.array([[3.0, 1.0], [3.0, 2.0]]))(np.array([[3.0, 1.0], [5.0, 3.0]]))
    assert scaled.tolist() == [[0.0, -1.0], [2.0, 3.0]]


# Settings


def test_arms_are_read_as_they_are_written() -> None:
    arms = parse_arms("none: 0; l2 car: 0.01 1e-6; covridge: 1 2; sparridge: 1,2")
    assert [arm.name for arm in arms] == [
        "none/0", "l2/0.01", "l2/1e-06", "car/0.01", "car/1e-06",
        "covridge/1/1", "covridge/1/2", "covridge/2/1", "covridge/2/2", "sparridge/1/2",
    ]  # fmt: skip


REFUSED: list[tuple[Run, list[tuple[dict[str, Any], str]]]] = [
    (Run(**RUNS["network"]), [
        ({"arms": "ridge: 1"}, "arms.*ridge.*l2"),
        ({"arms": "rigde: 1"}, "arms.*rigde.*ridge"),
        ({"arms": "l2 1"}, "arms.*'l2 1'.*penalties: strengths"),
        ({"arms": "l2: x"}, "arms.*'x'.*number"),
        ({"arms": "l2: nan"}, "arms.*nan.*finite"),
        ({"arms": "l2: 1; l2: 1.0"}, "arms.*twice"),
        ({"arms": "adaptive: 1"}, "arms.*adaptive.*add l2"),
        ({"folds": 3}, "folds = 3.*kind = network"),
        ({"kind": "linear", "arms": "l1: 1", "folds": 2}, "arms.*linear.*l1"),
        ({"batch_size": 25}, "batch_size = 25.*train_size = 24"),
        ({"validation_size": 0}, "validation_size = 0 and folds = 0"),
        ({"folds": 1}, "folds = 1"),
        ({"truth": "data"}, "truth = data.*simulated"),
        ({"support": 11}, "support = 11.*inputs = 10"),
        ({"split": "random"}, "split = random.*simulated.*drawn"),
        ({"correlation": "block", "inputs": 15}, "inputs = 15.*multiple of 10"),
        ({"rho": -0.1}, "rho = -0.1.*at least 0"),
        ({"truth": "sine"}, "truth = sine.*kind = network"),
        ({"kind": "bridge", "batch_size": 1}, "batch_size = 1.*at least 2"),
    ]),
    (Run(**RUNS["tuned"]), [
        ({"arms": "covridge: 0.1,0.5,0.9"}, "covridge has two strengths.*found 3"),
        ({"arms": "ridge: 0.1,0.5"}, "ridge has one strength.*found 2"),
        ({"arms": "l2: 1"}, "l2.*covridge"),
        ({"support": 7}, "support = 7.*inputs = 6"),
        ({"rho": -0.34}, "rho = -0.34.*4 inputs.*-0.3333"),
        ({"folds": 21}, "folds = 21.*train_size = 20"),
        ({"folds": 0}, "folds = 0"),
        ({"truth": "high"}, "truth = high.*linear or sine"),
        ({"correlation": "ar1"}, "correlation = ar1"),
    ]),
    (cooling(), [
        ({"part": 9}, "part = 9.*9 disjoint sets of 60"),
        ({"split": "random", "train_size": 600}, "792.*768"),
        ({"truth": "high"}, "truth = high.*cooling-load"),
        ({"kind": "bridge", "arms": "l2: 1"}, "kind = bridge.*cooling-load"),
        ({"split": "stratified"}, "split = stratified.*disjoint"),
    ]),
]  # fmt: skip


def test_settings_that_make_no_sense_together_are_named() -> None:
    for run, mistakes in REFUSED:
        for changes, words in mistakes:
            with pytest.raises(ValidationError, match=words):
                run.changed(**changes)


def test_names_of_runs() -> None:
    run = Run(**RUNS["network"])
    assert Run(**{**run.model_dump(), "baselines": False}) == run  # as the records of the first registration have it
    assert re.fullmatch(r"[A-Za-z0-9._-]+", run.run_id)
    assert STUDY.data(run) is None and STUDY.data(cooling()) == "cooling-load"
