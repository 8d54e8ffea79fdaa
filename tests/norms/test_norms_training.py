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

from effective_lr.studies.norms import STUDY
from effective_lr.studies.norms.base import Training
from effective_lr.studies.norms.data import (
    Scaler,
    anova,
    chosen,
    covariance,
    design,
    folds,
    selected,
    simulate,
    split,
    true_weights,
)
from effective_lr.studies.norms.settings import Arm, Run, parse_arms
from effective_lr.studies.norms.training import load, train

CPU = torch.device("cpu")
SMALL = {"inputs": 10, "train_size": 24, "validation_size": 10, "test_size": 20, "hidden": 3, "seed": 4}
NETWORK = {**SMALL, "kind": "network", "truth": "sparse", "rho": 0.5, "batch_size": 8, "steps": 12}
ALL_ARMS = "none: 0; l2 l1 l1+l2 car scar inverse adaptive: 0.01 0.1"
RUNS: dict[str, dict[str, Any]] = {
    "linear": {**SMALL, "kind": "linear", "truth": "low", "folds": 3, "arms": "l2 car inverse: 0.01 1"},
    "network": {**NETWORK, "arms": ALL_ARMS},
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


def tensors_of(name: str) -> dict[str, Tensor]:
    """Leukemia has 38 samples, here of 100 random genes."""
    if name != "classes":
        return {}
    random = np.random.default_rng(0)
    y = (np.arange(38) % 3 == 0).astype(float)
    x = random.normal(size=(38, 100))
    x[:, :20] += 2 * y[:, None]
    return {"x": torch.from_numpy(x), "y": torch.from_numpy(y)}


def trained(
    name: str, saved: bytes | None = None, after: Callable[[Training], None] = lambda t: None, **changes: Any
) -> Training:
    run = Run(**{**RUNS[name], **changes})
    return train(run, load(tensors_of(name), run, CPU), saved, after)


def value(training: Training, arm: str, quantity: str) -> float:
    return next(v for _, layer, what, v in training.rows if (layer, what) == (arm, quantity))


@pytest.mark.parametrize("name", RUNS)
def test_a_run_reports_what_the_study_summarizes_and_a_resumed_one_is_the_uninterrupted_one(name: str) -> None:
    """From steps all over a run: also from the borders between folds and stages."""
    saved: list[bytes] = []
    whole = trained(name, after=lambda training: saved.append(training.save()))
    assert whole.step == whole.steps >= len(saved) and not whole.diverged
    for state in saved[:: max(1, len(saved) // 8)]:
        resumed = trained(name, state)
        assert resumed.rows == whole.rows
        assert (resumed.step, resumed.examples) == (whole.step, whole.examples)
    assert all(np.isfinite(v) for _, _, _, v in whole.rows)
    means = {what: v for _, layer, what, v in whole.rows if layer == ""}
    assert STUDY.outcome(means)
    if name not in ("walk", "theorem"):
        assert set(STUDY.summarized) & set(means)
        tested = {layer for _, layer, what, _ in whole.rows if what.startswith("test_")}
        assert tested >= {arm.penalty if whole.run.kind == "tuned" else arm.name for arm in whole.arms}
    assert STUDY.operations(whole.run) > 0 and STUDY.megabytes(whole.run) >= 100


def test_an_arm_does_not_depend_on_the_others() -> None:
    both, alone = trained("network"), trained("network", arms="l2: 0.01 0.1")
    assert value(both, "l2/0.1", "test_rmse") == pytest.approx(value(alone, "l2/0.1", "test_rmse"), rel=1e-9)


def test_penalties_of_strength_0_are_no_penalty_and_larger_l1_has_more_zeros() -> None:
    training = trained("held")
    assert value(training, "l2/0", "test_rmse") == pytest.approx(value(training, "car/0", "test_rmse"), rel=1e-12)
    training = trained("network", arms="l1: 0 0.05 5", steps=200)
    counts = [value(training, f"l1/{s}", "nonzeros") for s in ("0", "0.05", "5")]
    assert counts[0] == 30 and counts[0] > counts[1] > counts[2]
    assert value(training, "l1/0.05", "active_inputs") <= 10
    assert 0 < value(training, "l1/0.05", "precision") <= 1


def test_all_zero_weights_have_no_direction() -> None:
    training = trained("network", arms="l1: 0 100", steps=100)
    assert value(training, "l1/100", "nonzeros") == 0
    assert not any(layer == "l1/100" and what == "top_share" for _, layer, what, _ in training.rows)


def test_a_run_of_which_all_arms_diverge_is_a_result() -> None:
    training = trained("network", arms="none: 0; l2: 0.1", lr=1e8, clip=0.0, steps=100)
    assert training.diverged and training.rows[-1][1:] == ("", "diverged", 1.0)


def test_batches_of_all_samples_need_no_order_and_smaller_ones_are_epochs() -> None:
    training = trained("network")
    batches = training.stage.batches  # type: ignore[attr-defined]
    assert sorted(batches[:3].flatten().tolist()) == list(range(24))
    assert trained("network", batch_size=24).stage.batches is None  # type: ignore[attr-defined]


# Samples


def test_truths_have_variance_1_and_lie_where_they_should() -> None:
    """By the share of the variance that is in the five largest components."""
    expected = {"sparse": (0.5, 0.9), "dense": (0.6, 0.9), "high": (0.97, 1), "low": (0, 0.05), "prior": (0.07, 0.13)}
    for truth, (low, high) in expected.items():
        run = Run(kind="linear", rho=0.9, truth=truth, arms="l2: 1", inputs=50, folds=2, seed=0)
        sigma = covariance(run)
        w = true_weights(run, sigma, 200, np.random.default_rng(0))
        np.testing.assert_allclose(np.einsum("ik,ij,jk->k", w, sigma, w), 1)
        d, v = np.linalg.eigh(sigma)
        assert low <= (d[:, None] * (v.T @ w) ** 2)[-5:].sum(0).mean() <= high
        assert truth != "sparse" or ((w != 0).sum(0) == 5).all()


def test_runs_of_one_seed_share_inputs_whatever_the_truth() -> None:
    tasks = [simulate(Run(**{**RUNS["network"], "truth": truth})) for truth in ("high", "low")]
    np.testing.assert_array_equal(tasks[0].train_x, tasks[1].train_x)
    assert (tasks[0].train_y != tasks[1].train_y).any()
    other = simulate(Run(**{**RUNS["network"], "seed": 5}))
    assert (tasks[0].train_x != other.train_x).all()


def test_block_covariance() -> None:
    sigma = covariance(
        Run(kind="linear", correlation="block", rho=0.5, truth="dense", inputs=20, folds=2, arms="l2: 1", seed=0)
    )
    assert sigma[0, 9] == 0.5 and sigma[0, 10] == 0 and (np.diag(sigma) == 1).all()


def cooling(part: int = 0, seed: int = 0, **changes: Any) -> Run:
    settings = {"kind": "tuned", "data": "cooling-load", "arms": "ridge: 1", "batch_size": 32, "split": "disjoint"}
    sizes = {"train_size": 60, "test_size": 192, "folds": 5}
    return Run(**{**settings, **sizes, "part": part, "seed": seed, **changes})


def test_disjoint_sets_share_no_training_row_and_one_test_set() -> None:
    parts = [chosen(cooling(part), np.zeros(768), np.random.default_rng(0)) for part in range(9)]
    assert all((part[:192] == parts[0][:192]).all() for part in parts)
    rows = np.concatenate([parts[0][:192], *(part[192:] for part in parts)])
    assert len(rows) == 192 + 9 * 60 == len(set(rows))


def test_stratified_splits_and_folds_keep_the_classes() -> None:
    run = Run(**RUNS["classes"])
    y = np.repeat([0.0, 1.0], [27, 11])
    tensors = {"x": torch.zeros(38, 2), "y": torch.from_numpy(y)}
    for seed in range(5):
        task = split(run.changed(seed=seed), tensors)
        assert 2 <= task.test_y.sum() <= 4 and len(task.test_y) == 10
        for inside, outside in folds(run, task.train_y):
            assert not set(inside) & set(outside) and len(inside) + len(outside) == 28
            assert 2 <= task.train_y[outside].sum() <= 3


def test_designs_have_the_reported_covariance_signal_and_noise() -> None:
    run = Run(**{**RUNS["tuned"], "train_size": 20_000, "noise": 0.5, "rho": -0.3})
    task, linear = design(run), design(run.changed(truth="linear"))
    expected = np.eye(6)
    expected[:4, :4] += -0.3 * (1 - np.eye(4))
    np.testing.assert_allclose(np.cov(task.train_x.T), expected, atol=0.04)
    np.testing.assert_array_equal(task.train_x, linear.train_x)
    theta = np.linalg.lstsq(linear.train_x, linear.train_y, rcond=None)[0]
    np.testing.assert_allclose(theta[4:], 0, atol=0.03)
    noise = task.train_y - np.sin(task.train_x[:, :4]) @ theta[:4]
    assert (
        noise.std() == pytest.approx(0.5, abs=0.02) and np.abs(np.corrcoef(noise, task.train_x.T)[0, 1:]).max() < 0.04
    )
    assert task.fresh_x is not None and len(task.fresh_x) == 2000


def test_genes_are_selected_by_anova_among_the_samples_that_train() -> None:
    feature_selection = pytest.importorskip("sklearn.feature_selection")
    tensors = tensors_of("classes")
    x, y = tensors["x"].numpy(), tensors["y"].numpy()
    np.testing.assert_allclose(anova(x, y), feature_selection.f_classif(x, y)[0], rtol=1e-6)
    x[:, 0] = 1.0
    assert anova(x, y)[0] == 0  # constant
    run = Run(**RUNS["classes"])
    task = split(run, tensors)
    mine = selected(run, task.train_x, task.train_y, task)
    leaked = selected(run.changed(selection="all"), task.train_x, task.train_y, task)
    assert len(mine) == len(leaked) == 15 and set(mine) != set(leaked)
    assert (mine == np.sort(np.argsort(-anova(task.train_x, task.train_y))[:15])).all()
    assert sorted(split(run.changed(shuffled=True), tensors).all_y) == sorted(y)  # type: ignore[arg-type, type-var]


def test_a_constant_input_is_centred_and_nothing_more() -> None:
    scaled = Scaler(np.array([[3.0, 1.0], [3.0, 2.0]]))(np.array([[3.0, 1.0], [5.0, 3.0]]))
    assert scaled.tolist() == [[0.0, -1.0], [2.0, 3.0]]


# Settings


def test_arms_are_read_as_they_are_written() -> None:
    arms = parse_arms("none: 0; l2 car: 0.01 1e-6")
    assert arms == (Arm("none", 0), Arm("l2", 0.01), Arm("l2", 1e-6), Arm("car", 0.01), Arm("car", 1e-6))
    assert [arm.name for arm in arms] == ["none/0", "l2/0.01", "l2/1e-06", "car/0.01", "car/1e-06"]
    assert [arm.name for arm in parse_arms("covridge: 1 2; sparridge: 1,2")] == [
        "covridge/1/1", "covridge/1/2", "covridge/2/1", "covridge/2/2", "sparridge/1/2",
    ]  # fmt: skip


OF_A_NETWORK: list[tuple[dict[str, Any], list[str]]] = [
    ({"arms": "ridge: 1"}, ["arms", "ridge", "l2"]),
    ({"arms": "rigde: 1"}, ["arms", "rigde", "ridge"]),
    ({"arms": "l2 1"}, ["arms", "l2 1", "penalties: strengths"]),
    ({"arms": "l2: x"}, ["arms", "'x'", "number"]),
    ({"arms": "l2: -1"}, ["arms", "-1", "at least 0"]),
    ({"arms": "l2: nan"}, ["arms", "nan", "finite"]),
    ({"arms": "l2: 1; l2: 1.0"}, ["arms", "twice"]),
    ({"arms": "adaptive: 1"}, ["arms", "adaptive", "add l2"]),
    ({"folds": 3}, ["folds = 3", "kind = network"]),
    ({"kind": "linear", "arms": "l1: 1", "folds": 2}, ["arms", "linear", "l1"]),
    ({"train_size": 1}, ["train_size", "2"]),
    ({"batch_size": 25}, ["batch_size = 25", "train_size = 24"]),
    ({"validation_size": 0}, ["validation_size = 0", "folds = 0"]),
    ({"folds": 1}, ["folds = 1"]),
    ({"truth": "data"}, ["truth = data", "simulated"]),
    ({"support": 11}, ["support = 11", "inputs = 10"]),
    ({"split": "random"}, ["split = random", "simulated", "drawn"]),
    ({"correlation": "block", "inputs": 15}, ["inputs = 15", "multiple of 10"]),
    ({"rho": 1.0}, ["rho", "less than 1"]),
    ({"rho": -0.1}, ["rho = -0.1", "at least 0"]),
    ({"truth": "sine"}, ["truth = sine", "kind = network"]),
    ({"kind": "bridge", "batch_size": 1}, ["batch_size = 1", "at least 2"]),
]
OF_A_DESIGN: list[tuple[dict[str, Any], list[str]]] = [
    ({"arms": "covridge: 0.1,0.5,0.9"}, ["covridge has two strengths", "found 3"]),
    ({"arms": "covridge: 0.1,0.5 0.1"}, ["covridge has two strengths"]),
    ({"arms": "ridge: 0.1,0.5"}, ["ridge has one strength", "found 2"]),
    ({"arms": "l2: 1"}, ["l2", "covridge"]),
    ({"support": 7}, ["support = 7", "inputs = 6"]),
    ({"rho": -0.34}, ["rho = -0.34", "4 inputs", "-0.3333"]),
    ({"rho": 1.0}, ["rho", "less than 1"]),
    ({"folds": 21}, ["folds = 21", "train_size = 20"]),
    ({"folds": 0}, ["folds = 0"]),
    ({"truth": "high"}, ["truth = high", "linear or sine"]),
    ({"correlation": "ar1"}, ["correlation = ar1"]),
]
OF_DISJOINT_SETS: list[tuple[dict[str, Any], list[str]]] = [
    ({"part": 9}, ["part = 9", "9 disjoint sets of 60"]),
    ({"split": "random", "train_size": 600}, ["792", "768"]),
    ({"truth": "high"}, ["truth = high", "cooling-load"]),
    ({"kind": "bridge", "arms": "l2: 1"}, ["kind = bridge", "cooling-load"]),
    ({"split": "stratified"}, ["split = stratified", "disjoint"]),
]


def test_settings_that_make_no_sense_together_are_named() -> None:
    given = (
        (Run(**RUNS["network"]), OF_A_NETWORK),
        (Run(**RUNS["tuned"]), OF_A_DESIGN),
        (cooling(), OF_DISJOINT_SETS),
    )
    for run, mistakes in given:
        for changes, words in mistakes:
            with pytest.raises(ValidationError) as error:
                run.changed(**changes)
            assert all(word in str(error.value) for word in words), str(error.value)


def test_names_of_runs() -> None:
    run = Run(**RUNS["network"])
    assert Run(**{**run.model_dump(), "baselines": False}) == run  # as the records of the first registration have it
    assert re.fullmatch(r"[A-Za-z0-9._-]+", run.run_id)
    assert STUDY.data(run) is None and STUDY.data(cooling()) == "cooling-load"
