"""The loop: what it measures, evaluations, divergence and checkpoints."""

import math
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effective_lr.studies.normalization import training
from effective_lr.studies.normalization.data import Splits
from effective_lr.studies.normalization.networks import build_network
from effective_lr.studies.normalization.settings import Run
from effective_lr.studies.normalization.training import Row, Training, batches, train
from shared import CPU, INVARIANT, NORMALIZATIONS, OPTIMIZERS, diverging_run, make_run, train_rows
from twins import LAYERS, Plain


def values(rows: list[Row], quantity: str, layer: str = "") -> dict[int, float]:
    """The values of one quantity by step."""
    return {step: value for step, name, what, value in rows if (name, what) == (layer, quantity)}


def test_batches_are_epochs_in_random_orders() -> None:
    run = make_run(train_size=50, statistics_size=50, batch_size=16, steps=7)
    drawn = list(batches(run, CPU))
    assert [len(batch) for batch in drawn] == [16] * 7
    for epoch in (drawn[:3], drawn[3:6]):
        assert len(set(torch.cat(epoch).tolist())) == 48
    assert not torch.equal(drawn[0], drawn[3])
    same = list(batches(make_run(**{**run.model_dump(), "lr": 3, "l2": 0, "optimizer": "adam"}), CPU))
    assert all(torch.equal(a, b) for a, b in zip(drawn, same, strict=True))
    assert not torch.equal(drawn[0], next(batches(make_run(**{**run.model_dump(), "seed": 4}), CPU)))


def measured(before: Tensor, gradient: Tensor, after: Tensor, whole_layer: bool) -> dict[str, Any]:
    """The quantities of a step, for each scale group."""
    w, g, v = (part.reshape(1 if whole_layer else len(part), -1).numpy() for part in (before, gradient, after))
    norm, slope = (w**2).sum(1), (g**2).sum(1)
    angle = np.arccos(np.clip((w * v).sum(1) / np.sqrt(norm * (v**2).sum(1)), -1, 1))
    return {"norm_squared": norm, "gradient_squared": slope, "g_squared": norm * slope, "angle_squared": angle**2}


@pytest.mark.parametrize(
    "normalization, projected", [*((name, False) for name in NORMALIZATIONS), *((name, True) for name in INVARIANT)]
)
def test_rows_of_steps_and_late_means(normalization: str, projected: bool, small_splits: Splits) -> None:
    run = make_run(normalization=normalization, projected=projected, lr=0.3, steps=60, probes=600)
    rows, plain = train_rows(run, small_splits, torch.float64), Plain(run)
    steps: dict[str, list[dict[str, Any]]] = {name: [] for name in LAYERS}
    gammas: dict[str, list[float]] = {name: [] for name in LAYERS}
    for batch in batches(run, CPU):
        before = {name: weight.detach().clone() for name, weight in plain.weights.items()}
        plain.step(small_splits, batch)
        for (name, weight), (_, gamma, _) in zip(plain.weights.items(), plain.parameters, strict=True):
            steps[name].append(measured(before[name], weight.grad, weight.detach(), normalization == "layer"))
            gammas[name] += [] if gamma is None else [float(gamma.detach().norm())]
    for name, weight in plain.weights.items():
        for what in ("norm_squared", "gradient_squared", "g_squared", "angle_squared"):
            medians = {t: np.median(step[what]) for t, step in enumerate(steps[name], start=1)}
            if what != "gradient_squared":
                assert values(rows, what, name) == pytest.approx(medians, rel=1e-6), (name, what)
            late = np.mean([steps[name][t - 1][what] for t in (40, 50, 60)], axis=0)  # sampled every tenth step
            assert values(rows, f"late_{what}", name) == {60: pytest.approx(np.median(late), rel=1e-6)}, (name, what)
        assert list(values(rows, "gamma_norm", name).values()) == pytest.approx(gammas[name])
        size = weight.numel() if normalization == "layer" else weight[0].numel()
        assert values(rows, "group_size", name) == {60: size}
    losses = list(values(rows, "train_loss").values())
    assert values(rows, "late_train_loss") == {60: pytest.approx(np.mean(losses[30:]), rel=1e-6)}


def test_angles_are_exact_from_tiny_to_straight() -> None:
    layer = build_network(make_run(), torch.float64).conv1
    for angle in (1e-9, 1e-4, 0.5, 1.5, math.pi - 1e-6):
        before, after = torch.zeros(2, 2, 1, 3, 3, dtype=torch.float64)
        before[:, 0, 0, 0] = 5
        after[:, 0, 0, 0] = 0.1 * math.cos(angle)
        after[:, 0, 2, 1] = 0.1 * math.sin(angle)
        assert training.angles(before, after, layer).tolist() == pytest.approx([angle] * 2, rel=1e-9)


def test_probes_and_evaluations_are_where_they_should_be(single: Splits) -> None:
    run = make_run(steps=1000, probes=30, evaluations=8, late_fraction=0.3)
    probes = sorted(training.probe_steps(run))
    assert probes[0] == 1 and probes[-1] == 1000 and 20 <= len(probes) <= 30
    gaps = np.diff(np.log(probes))
    assert gaps[-10:].max() < 1.1 * gaps[-10:].min()  # log-spaced, once rounding is small
    again = training.probe_steps(run.changed(lr_drop=4)) - set(probes)  # where the learning rate drops
    assert {501, 502, 503} <= again and min(again) > 500
    evaluations = sorted(training.evaluation_steps(run))
    assert len(evaluations) == 8 and evaluations[-1] == 1000 and evaluations[0] > 700
    assert np.ptp(np.diff(evaluations)) <= 1
    for changes in ({"steps": 10, "late_fraction": 0.01}, {"steps": 1}):  # short runs end well
        rows = train_rows(make_run(evaluations=1, **changes), single)
        assert list(values(rows, "test_error")) == [changes["steps"]]


@pytest.mark.parametrize("rescaled", [False, True])
def test_a_drop_is_a_run_that_goes_on_with_another_learning_rate(rescaled: bool, small_splits: Splits) -> None:
    run = make_run(lr_drop=4, rescaled_at_drop=rescaled, steps=20, l2=0.3)
    plain, losses = Plain(run), []
    for step, batch in enumerate(batches(run, CPU), start=1):
        if step == 11:
            plain.optimizer.param_groups[0]["lr"] = run.lr / 4  # of the weights
            for weight in plain.weights.values():
                weight.data /= 4**0.25 if rescaled else 1
        losses.append(plain.step(small_splits, batch)[0])
    rows = train_rows(run, small_splits, torch.float64)
    assert list(values(rows, "train_loss").values()) == pytest.approx(losses, rel=1e-10)
    measured = values(rows, "norm_squared", "linear")
    assert (measured[11] < 0.6 * measured[10]) == rescaled


def test_divergence_ends_a_run_and_no_other(single: Splits) -> None:
    """Of all weights; of those after the last step, whose loss is still finite and which an evaluation alone sees; and
    of a single one that is no number."""

    mate = train_rows(make_run(steps=60), single)
    at_the_end = make_run(normalization="none", lr=1e38, affine_lr=1e-9, l2=0, steps=1, evaluations=1)
    for run, value, last_step in [
        (diverging_run(), 0.0, 25),
        (at_the_end, 0.0, 1),
        (make_run(steps=60, l2=0), math.nan, 25),
        (make_run(steps=60, l2=0), math.inf, 25),
    ]:

        def poison(training: Training, value: float = value) -> None:
            if training.step == 5:
                training.network.conv2.weight.data[0, 0, 0, 0] = value

        rows = train(run, single, after_step=poison).rows
        assert rows[-1] == (last_step, "", "diverged", 1.0)
        assert not any(values(rows, what) for what in ("test_error", "test_loss", "late_train_loss"))
    assert all(map(math.isfinite, values(train_rows(at_the_end, single), "train_loss").values()))
    assert train_rows(make_run(steps=60), single) == mate


def test_evaluations_are_those_of_plain_pytorch(small_splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks, of which the last is smaller. Recomputed statistics are the mean over chunks of one size: in chunks of
    16 a last image would be left alone."""
    monkeypatch.setattr(training, "EVALUATION_CHUNK", 16)
    for normalization, statistics in [*((name, "recomputed") for name in NORMALIZATIONS), ("batch", "running")]:
        run = make_run(normalization=normalization, batch_statistics=statistics, statistics_size=65, evaluations=1)
        rows, plain = train_rows(run, small_splits, torch.float64), Plain(run)
        for batch in batches(run, CPU):
            plain.step(small_splits, batch)
        if statistics == "recomputed":
            for module in plain.network.modules():
                if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                    module.reset_running_stats()
                    module.momentum = None  # so that they become the mean over what follows
            for chunk in small_splits.train_images[:65].split(13):
                plain.network(chunk)
        network = plain.network.eval()
        for split in ("validation", "test"):
            images, labels = (getattr(small_splits, f"{split}_{what}") for what in ("images", "labels"))
            logits = network(images).detach()
            loss, error = float(F.cross_entropy(logits, labels)), float((logits.argmax(1) != labels).double().mean())
            found = values(rows, f"{split}_loss"), values(rows, f"{split}_error")
            assert found == ({20: pytest.approx(loss)}, {20: error}), (normalization, statistics)


def test_evaluations_leave_the_training_as_it_is_and_see_all_images_in_parts(small_splits: Splits) -> None:
    """With weights that hardly move, the mean over parts is the value over all images, seen at every evaluation."""
    for statistics in ("recomputed", "running"):
        few, many = (
            train_rows(make_run(evaluations=n, batch_statistics=statistics), small_splits, torch.float64)
            for n in (1, 8)
        )
        assert values(few, "train_loss") == values(many, "train_loss") and len(values(many, "test_loss")) == 8
    still = {"lr": 1e-12, "affine_lr": 1e-12, "evaluations": 5, "normalization": "weight"}
    parts, whole = (
        train_rows(make_run(**still, evaluated=way), small_splits, torch.float64) for way in ("parts", "all")
    )
    for what in ("test_error", "test_loss", "validation_error", "validation_loss"):
        seen = list(values(parts, what).values())
        assert len(seen) == 5
        assert np.mean(seen) == pytest.approx(np.mean(list(values(whole, what).values())), rel=1e-6)
    assert len(set(values(parts, "test_loss").values())) == 5


def last(rows: list[Row], layer: str) -> dict[str, float]:
    """What the last step says of a layer."""
    end = max(step for step, *_ in rows)
    return {what: value for step, name, what, value in rows if (step, name) == (end, layer)}


@pytest.mark.parametrize("normalization", INVARIANT)
def test_squares_of_the_steps_add_up_without_a_penalty_alone(normalization: str, small_splits: Splits) -> None:
    settings = {"normalization": normalization, "norm_eps": 1e-20, "lr": 0.3, "steps": 60}
    rows = train_rows(make_run(**settings, l2=0), small_splits, torch.float64)
    for name in LAYERS:
        found = last(rows, name)
        assert (found["growth_ratio_min"], found["growth_ratio_max"]) == pytest.approx((1, 1), rel=1e-6), name
        assert found["end_norm_squared"] > found["late_start_norm_squared"] > 1
        assert found["fourth_power_ratio"] == pytest.approx(1, abs=0.05)  # finite steps add a little
        assert found["measured_slope"] == pytest.approx(found["implied_slope"], abs=0.02)
    usual = train_rows(make_run(**{**settings, "norm_eps": 0.1}, l2=0), small_splits, torch.float64)
    if normalization != "weight":  # which has no ε
        assert abs(last(usual, "conv2")["growth_ratio_max"] - 1) > 1e-3
    for changes in ({"l2": 0.1}, {"l2": 0, "optimizer": "nesterov"}, {"l2": 0, "projected": True}):
        rows = train_rows(make_run(**{**settings, **changes}), small_splits, torch.float64)
        assert "growth_ratio_min" not in last(rows, "conv2")


def test_units_without_a_gradient_are_counted_and_described(small_splits: Splits) -> None:
    def kill(training: Training) -> None:
        with torch.no_grad():  # β far below zero: the activation of one unit of two is off for every image
            training.network.conv2.beta[:2] = -100.0
            training.network.conv2.gamma[:2] = torch.tensor([0.2, 0.4])

    for leak, share in ((0.0, 0.5), (0.1, 0.0)):
        rows = train(make_run(leak=leak), small_splits, after_step=kill, dtype=torch.float64).rows
        found = last(rows, "conv2")
        assert found["late_without_gradient"] == share
        assert ("lost_norm_squared" in found) == (share > 0)
        assert last(rows, "linear")["late_without_gradient"] == 0
        if share:
            assert found["lost_gamma"] == pytest.approx(0.3, abs=0.02)
            # Only the penalty acts on them: they shrink and do not turn.
            assert found["lost_angle_squared"] < 1e-12 and found["lost_norm_squared"] < 1
            assert last(rows, "linear")["late_live_inputs"] == 8


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_late_updates_are_what_the_learning_rate_multiplies(optimizer: str, small_splits: Splits) -> None:
    """From torch's own state: û, Σ√ŝ, the cosine of gradient and remembered mean, and what their balance is made of, at
    the last step alone."""
    run = make_run(optimizer=optimizer, lr=0.01, steps=11, late_fraction=0.01, evaluations=1)
    plain = Plain(run)
    for batch in batches(run, CPU):
        states = [dict(plain.optimizer.state[weight]) for weight in plain.weights.values()]
        names = ("momentum_buffer", "exp_avg")
        means = [next((state[n].clone() for n in names if state.get(n) is not None), None) for state in states]
        before = [weight.detach().clone() for weight in plain.weights.values()]
        plain.step(small_splits, batch)
    rows = train_rows(run, small_splits, torch.float64)
    for (name, weight), old, mean in zip(plain.weights.items(), before, means, strict=True):
        found, gradient = last(rows, name), weight.grad
        kept = 1 - 2 * run.lr * run.l2 if optimizer == "adamw" else 1
        update = ((old * kept - weight.detach()) / run.lr).flatten(1)
        assert found["late_update_squared"] == pytest.approx(median((update**2).sum(1).tolist()), rel=1e-5)
        if mean is not None:
            cosine = F.cosine_similarity(gradient.flatten(1), mean.flatten(1)).tolist()
            assert found["late_momentum_cosine"] == pytest.approx(median(cosine), rel=1e-5)
        state = plain.optimizer.state[weight]
        square = state.get("exp_avg_sq", state.get("square_avg"))
        assert ("late_root_sum" in found) == (square is not None) == ("late_norm_to_root" in found)
        if square is not None:
            correction = 1 if optimizer == "rmsprop" else 1 - 0.999**11
            roots = (square / correction).sqrt().flatten(1).sum(1)
            assert found["late_root_sum"] == pytest.approx(median(roots.tolist()), rel=1e-5)
            ratio = (old.flatten(1) ** 2).sum(1) / roots
            assert found["late_norm_to_root"] == pytest.approx(median(ratio.tolist()), rel=1e-5)
        scale = 1 if square is None else 1 / ((square / correction).sqrt() + run.optimizer_eps)
        expected = {"norm": old**2, "gradient": scale * gradient**2}
        if square is not None:
            expected["rooted_norm"] = (square / correction).sqrt() * old**2
        if mean is not None:
            expected["memory"] = scale * gradient * mean / (1 if square is None else 1 - 0.9**10)
        sums = {what: float(values.sum()) for what, values in expected.items()}
        assert {what: found.get(f"balance_{what}") for what in sums} == pytest.approx(sums, rel=1e-5)
        assert {what for what in found if what.startswith("balance_")} == {f"balance_{what}" for what in sums}


def in_parts(run: Run, splits: Splits, stops: list[int]) -> list[Row]:
    """The rows of a run that is saved and given up after each of these steps."""
    saved: bytes | None = None
    states: dict[int, bytes] = {}
    for stop in stops:
        train(run, splits, saved=saved, after_step=lambda training: states.update({training.step: training.save()}))
        saved = states[stop]
    return train(run, splits, saved=saved).rows


RESUMED: list[dict[str, Any]] = [
    *({"normalization": name, "optimizer": rule} for name in NORMALIZATIONS for rule in OPTIMIZERS),
    {"projected": True},
    {"batch_statistics": "running"},
    {"lr_drop": 4},
    {"replay": "closed"},
    {"replay": "open"},
    {"l2": 0},  # sums the squares of all steps
    {"optimizer": "adam", "affine_lr": "frozen", "layer_l2": "inverse_size", "leak": 0.1},
]


def test_resumed_run_is_bit_for_bit_the_undisturbed_one(single: Splits) -> None:
    for changes in RESUMED:
        run = make_run(lr=0.01, evaluations=4, **changes)
        # Between epochs, in the late part, before the end.
        assert in_parts(run, single, [1, 11, 19]) == train_rows(run, single), changes
