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
from effective_lr.studies.norms.data import Scaler, chosen, covariance, folds, simulate, split, true_weights
from effective_lr.studies.norms.settings import Arm, Run, parse_arms
from effective_lr.studies.norms.training import Training, load, train

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
    "leukemia": {
        "kind": "network", "data": "leukemia", "split": "stratified", "train_size": 12, "validation_size": 0,
        "test_size": 6, "folds": 3, "hidden": 2, "steps": 4, "batch_size": 12, "seed": 4, "baselines": True,
        "arms": "none: 0; l2 car0 scar: 0.001 0.01",
    },
}  # fmt: skip


def tensors_of(name: str) -> dict[str, Tensor]:
    """Leukemia needs 38 samples, here of 3051 random genes."""
    if name != "leukemia":
        return {}
    random = np.random.default_rng(0)
    y = (np.arange(38) % 3 == 0).astype(float)
    x = random.normal(size=(38, 3051))
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
    assert whole.step == whole.steps == len(saved) and not whole.diverged
    for state in saved[:: max(1, len(saved) // 8)]:
        resumed = trained(name, state)
        assert resumed.rows == whole.rows
        assert (resumed.step, resumed.examples) == (whole.step, whole.examples)
    assert all(np.isfinite(v) for _, _, _, v in whole.rows)
    means = {what: v for _, layer, what, v in whole.rows if layer == ""}
    assert STUDY.outcome(means)
    if name != "walk":
        assert set(STUDY.summarized) & set(means)
        tested = {layer for _, layer, what, _ in whole.rows if what.startswith("test_")}
        assert tested >= {arm.name for arm in whole.arms}
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
    settings = {"kind": "network", "data": "cooling-load", "arms": "l2: 1", "batch_size": 32, "split": "disjoint"}
    sizes = {"train_size": 60, "validation_size": 134, "test_size": 154}
    return Run(**{**settings, **sizes, "part": part, "seed": seed, **changes})


def test_disjoint_sets_share_no_training_row_and_one_test_set() -> None:
    tensors = {"y": torch.zeros(768)}
    parts = [chosen(cooling(part), tensors, np.random.default_rng(0)) for part in range(8)]
    assert all((part[:288] == parts[0][:288]).all() for part in parts)
    rows = np.concatenate([parts[0][:288], *(part[288:] for part in parts)])
    assert sorted(rows) == list(range(768))


def test_a_split_by_shape_keeps_shapes_whole() -> None:
    shapes = torch.arange(768) % 12
    run = cooling(split="shape", train_size=448, validation_size=128, test_size=192)
    order = chosen(run, {"y": torch.zeros(768), "shape": shapes}, np.random.default_rng(0))
    groups = [set(shapes[part].tolist()) for part in np.split(order, [192, 320])]
    assert [len(group) for group in groups] == [3, 2, 7] and not groups[0] & groups[1] | groups[2] & groups[0]


def test_stratified_splits_and_folds_keep_the_classes() -> None:
    run = Run(**{**RUNS["leukemia"], "train_size": 25, "test_size": 13, "batch_size": 25})
    y = np.repeat([0.0, 1.0], [27, 11])
    tensors = {"x": torch.zeros(38, 2), "y": torch.from_numpy(y)}
    for seed in range(5):
        task = split(run.changed(seed=seed), tensors)
        assert 3 <= task.test_y.sum() <= 4 and len(task.test_y) == 13
        for inside, outside in folds(run, task.train_y):
            assert not set(inside) & set(outside) and len(inside) + len(outside) == 25
            assert 2 <= task.train_y[outside].sum() <= 3


def test_the_original_split_is_that_of_the_72_samples() -> None:
    run = Run(**{**RUNS["leukemia"], "split": "original", "train_size": 38, "test_size": 34})
    assert STUDY.data(run) == "leukemia-72"
    tensors = tensors_of("leukemia")
    task = split(run, {**tensors, "test_x": tensors["x"][:34], "test_y": tensors["y"][:34]})
    assert task.train_x.shape == (38, 3051) and len(task.test_y) == 34 and len(task.validation_y) == 0


def test_a_constant_input_is_centred_and_nothing_more() -> None:
    scaled = Scaler(np.array([[3.0, 1.0], [3.0, 2.0]]))(np.array([[3.0, 1.0], [5.0, 3.0]]))
    assert scaled.tolist() == [[0.0, -1.0], [2.0, 3.0]]


# Settings


def test_arms_are_read_as_they_are_written() -> None:
    arms = parse_arms("none: 0; l2 car: 0.01 1e-6")
    assert arms == (Arm("none", 0), Arm("l2", 0.01), Arm("l2", 1e-6), Arm("car", 0.01), Arm("car", 1e-6))
    assert [arm.name for arm in arms] == ["none/0", "l2/0.01", "l2/1e-06", "car/0.01", "car/1e-06"]


OF_A_NETWORK: list[tuple[dict[str, Any], list[str]]] = [
    ({"arms": "ridge: 1"}, ["arms", "ridge", "l2"]),
    ({"arms": "l2 1"}, ["arms", "l2 1", "penalties: strengths"]),
    ({"arms": "l2: x"}, ["arms", "'x'", "number"]),
    ({"arms": "l2: -1"}, ["arms", "-1", "at least 0"]),
    ({"arms": "l2: nan"}, ["arms", "nan", "finite"]),
    ({"arms": "l2: 1; l2: 1.0"}, ["arms", "twice"]),
    ({"arms": "adaptive: 1"}, ["arms", "adaptive", "add l2"]),
    ({"arms": "l2 adaptive: 1", "folds": 3}, ["arms", "folds = 3", "adaptive"]),
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
    ({"kind": "bridge", "batch_size": 1}, ["batch_size = 1", "at least 2"]),
]
OF_DISJOINT_SETS: list[tuple[dict[str, Any], list[str]]] = [
    ({"part": 8}, ["part = 8", "8 disjoint sets of 60"]),
    ({"split": "random", "train_size": 600}, ["888", "768"]),
    ({"split": "shape"}, ["split = shape", "64"]),
    ({"truth": "high"}, ["truth = high", "cooling-load"]),
    ({"kind": "bridge"}, ["kind = bridge", "cooling-load"]),
    ({"split": "original"}, ["split = original", "disjoint"]),
]


def test_settings_that_make_no_sense_together_are_named() -> None:
    for run, mistakes in ((Run(**RUNS["network"]), OF_A_NETWORK), (cooling(), OF_DISJOINT_SETS)):
        for changes, words in mistakes:
            with pytest.raises(ValidationError) as error:
                run.changed(**changes)
            assert all(word in str(error.value) for word in words), str(error.value)


def test_names_of_runs() -> None:
    run = Run(**RUNS["network"])
    assert run.stem == "network-ar1_0.5-p_10-n_24"
    assert re.fullmatch(r"[A-Za-z0-9._-]+", run.run_id)
    assert STUDY.data(run) is None and STUDY.data(cooling()) == "cooling-load"
