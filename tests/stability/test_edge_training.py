"""Training: plain gradient descent with decay, its probes, the kick, interruption, divergence and refusals."""

import dataclasses
import re
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from effective_lr.errors import UserError
from effective_lr.studies.stability import STUDY, checks, parameters
from effective_lr.studies.stability.curvature import gradient
from effective_lr.studies.stability.training import Training, load, train

CPU = torch.device("cpu")


def tensors(train: int = 60, test: int = 20) -> dict[str, Tensor]:
    """Images of ten noisy patterns, in the form of prepared data."""
    generator = torch.Generator().manual_seed(0)
    patterns = 0.3 * torch.randn(10, 1, 14, 14, generator=generator)
    labels = torch.randint(10, (train + test,), generator=generator)
    images = patterns[labels] + 0.15 * torch.randn(train + test, 1, 14, 14, generator=generator)
    return {
        "train_images": images[:train],
        "train_labels": labels[:train],
        "test_images": images[train:],
        "test_labels": labels[train:],
    }


class Trained(NamedTuple):
    """A small run; its probes, one line for each step; its weights, and the eigenvector at hand, after every step."""

    training: Training
    table: pd.DataFrame
    path: list[Tensor]
    tops: list[Tensor]


def trained(**settings: Any) -> Trained:
    run, path, tops = checks.small_run(0, **settings), list[Tensor](), list[Tensor]()

    def follow(one: Training) -> None:
        path.append(one.w)
        tops.append(one.top)

    training = train(run, load(tensors(), run, CPU), after_step=follow)
    rows = pd.DataFrame(training.rows, columns=["step", "layer", "quantity", "value"])
    table = rows.pivot_table(index="step", columns="quantity", values="value")
    return Trained(training, table, [training.network.start(), *path], [training.network.start(), *tops])


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"batch_size": 64}, "batch_size = 64.*minibatches.*use batch_size = full"),
    ({"momentum": 0.9}, "momentum = 0.9.*plain gradient descent.*use momentum = 0.0"),
    ({"activation": "relu"}, "activation = relu.*kinks of ReLU.*use activation = tanh"),
    ({"pooling": "max"}, "pooling = max.*kinks of a maximum.*use pooling = none"),
    ({"precision": "float32"}, "precision = float32.*rounding.*use precision = float64"),
    *(({key: -1}, "greater than") for key in ("lr", "steps", "probes", "train_size")),
    ({"l2": -0.1}, "l2 = -0.1.*use 0 or more"),
    ({"train_size": 60_001}, "train_size = 60001.*60000"),
    ({"ntk_images": 11}, "ntk_images = 11.*10"),
    ({"probes": 101}, "probes = 101.*100"),
    ({"resolution": 15}, "resolution = 15.*14"),
    ({"normalization": "batch", "ntk_images": 4}, "ntk_images = 4.*ntk_images = 0"),
    ({"normalization": "batch", "train_size": 1}, "train_size = 1.*at least 2"),
]


def test_what_would_spoil_the_measurement_or_is_impossible_is_refused_with_the_reason() -> None:
    for settings, reason in REFUSED:
        with pytest.raises(ValidationError) as caught:
            checks.small_run(0, **settings)
        [error] = caught.value.errors()
        assert re.search(reason, error["msg"]), error["msg"]


SMALL_START: dict[str, Any] = {"width": 8, "second_width": 8, "initial_scale": 0.3}  # which sharpens
AT_THE_EDGE = SMALL_START | {"lr": 0.95, "l2": 0.0, "steps": 400, "probes": 40, "ntk_images": 8}


@pytest.fixture(scope="module")
def at_the_edge() -> Trained:
    return trained(**AT_THE_EDGE)


@pytest.mark.parametrize("settings", [{}, {"network": "cnn"}, {"normalization": "batch"}, {"normalization": "weight"}])
@pytest.mark.parametrize("loss", ["mse", "cross-entropy"])
def test_training_is_sgd_of_pytorch_with_twice_the_decay(settings: dict[str, Any], loss: str) -> None:
    training = trained(lr=0.02, loss=loss, steps=20, probes=1, kick=0.0, l2=0.05, **settings).training
    run, data, network = training.run, training.data, training.network
    pieces = [piece.clone().requires_grad_() for piece in network.start().split(network.sizes)]
    every = 3 if network.has_gain else 2
    others = [piece for number, piece in enumerate(pieces) if number % every]
    groups = [{"params": pieces[::every], "weight_decay": 2 * run.l2}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=run.lr)
    for _ in range(20):
        optimizer.zero_grad()
        outputs = network.outputs(torch.cat(pieces), data.train_images)
        if loss == "mse":
            (0.5 * F.mse_loss(outputs, data.targets, reduction="sum") / len(outputs)).backward()
        else:
            F.cross_entropy(outputs, data.targets.argmax(1)).backward()
        optimizer.step()
    torch.testing.assert_close(training.w, torch.cat(pieces).detach(), rtol=1e-10, atol=1e-12)


def test_data_are_the_first_images_in_float64() -> None:
    run, given = checks.small_run(0), tensors()
    data = load(given, run, CPU)
    torch.testing.assert_close(data.train_images, given["train_images"][:30].double())
    torch.testing.assert_close(data.targets, torch.eye(10).double()[given["train_labels"][:30]])
    assert len(data.test_images) == len(data.test_labels) == 10
    with pytest.raises(UserError, match=r"train_size = 30.* 20 images"):
        load(tensors(train=20), run, CPU)


def test_a_start_above_the_edge_is_refused_before_the_first_step() -> None:
    run = checks.small_run(0, lr=2.0)
    with pytest.raises(UserError, match=r"lr = 2\b.*2/lr = 1\b") as caught:
        train(run, load(tensors(), run, CPU), after_step=lambda training: pytest.fail("a step was made"))
    bound = float(str(caught.value).split("use an lr below ")[1])
    below = run.changed(lr=0.99 * bound, steps=1, probes=1)
    train(below, load(tensors(), below, CPU))


def test_the_edge_is_reached_and_gets_one_kick(at_the_edge: Trained) -> None:
    training, table, path, tops = at_the_edge
    ratio = table["sharpness_total"] * training.run.lr / 2
    first = ratio.index[ratio > 1][0]
    assert table["edge_step"].dropna().to_dict() == {first: first}
    plain = [w * training.keep - training.run.lr * gradient(training.loss, w)[1] for w in path[:-1]]
    assert [step for step in range(1, len(path)) if not torch.equal(path[step], plain[step - 1])] == [first]
    kick, norm = path[first] - plain[first - 1], (plain[first - 1] * training.network.penalized).norm()
    assert float(kick.norm() / norm) == pytest.approx(1e-4, rel=0.01)
    assert abs(float(kick @ tops[first] / kick.norm())) == pytest.approx(1)


def test_beyond_the_edge_the_weights_oscillate_with_period_two(at_the_edge: Trained) -> None:
    training, table, path, _ = at_the_edge
    steps = torch.stack(path[-9:]).diff(dim=0)
    assert float((steps[1:] + steps[:-1]).norm() / steps.norm()) < 0.1  # two steps lead back
    along = steps @ training.top
    assert (along[1:] * along[:-1] < 0).all()
    assert abs(float(along[-1])) == pytest.approx(2 * abs(table["displacement"].iloc[-1]), rel=0.01)


def test_the_range_of_the_displacement_is_that_of_the_steps_from_the_probe_on(at_the_edge: Trained) -> None:
    training, table, path, tops = at_the_edge
    for start, expected in table.loc[300:, "displacement_range"].dropna().items():
        steps = range(int(start), int(start) + training.run.probe_every)
        x = [float(tops[step] @ (path[step] - path[step - 1])) / 2 for step in steps]
        assert max(x) - min(x) == pytest.approx(expected, rel=1e-9)
    assert table["displacement_range"].isna().sum() == 1  # of the last probe
    assert table["displacement_range"].iloc[-2] == pytest.approx(2 * abs(table["displacement"].iloc[-2]), rel=0.2)


def test_looks_at_several_directions_change_nothing_else_and_agree_with_the_probes(at_the_edge: Trained) -> None:
    looking, table, *_ = trained(**AT_THE_EDGE, pairs_every=5)
    rows = [row for row in looking.rows if not row[2].startswith("edge_") or row[2] == "edge_step"]
    assert rows == at_the_edge.training.rows
    assert list(table.index[table["edge_pressure"].notna()]) == list(range(270, 401, 5))
    both = table.dropna(subset=["edge_pressure", "sharpness"])
    np.testing.assert_allclose(both["edge_ratio_1"], both["sharpness_total"] * looking.run.lr / 2, rtol=1e-3)
    np.testing.assert_allclose(both["edge_force"], both["alpha_eff"], rtol=0.05)
    top = both["beta"] / 2 * both["displacement"] ** 2
    np.testing.assert_allclose(both["edge_pressure_top"], top, rtol=0.05)
    alone = both[both["edge_directions"] == 1]
    np.testing.assert_allclose(alone["edge_pressure"], alone["edge_pressure_top"], rtol=0.01)
    assert (both["edge_pressure"] / both["edge_pressure_whole"]).median() == pytest.approx(1, abs=0.05)


def test_the_drift_of_the_sharpness_follows_its_force() -> None:
    """dS/dt = α0 − 2λAS between adjacent probes of a run below the edge."""
    for settings in ({}, {"network": "cnn"}, {"loss": "cross-entropy"}):
        training, table, *_ = trained(lr=0.02, l2=0.01, steps=400, probes=40, **settings)
        assert "edge_step" not in table
        force = table["alpha0"] - 2 * 0.01 * table["degree"] * table["sharpness"]
        change = table["sharpness"].diff() / (10 * training.run.lr)
        force, change = (force + force.shift()).iloc[16:] / 2, change.iloc[16:]
        assert (force @ change) / (force @ force) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("normalization", ["batch", "weight"])
def test_the_measured_degree_of_invariant_weights(normalization: str) -> None:
    table = trained(normalization=normalization, lr=0.02, steps=60, probes=6).table
    np.testing.assert_allclose(table["degree"], -2 * table["u_weight_share"], rtol=0.01)
    assert (table["spherical_sharpness"] > 0).all()
    assert (table["angle_squared"] > 0).all()


def test_batch_statistics_of_an_evaluation_are_those_of_the_training_images() -> None:
    """Wild images among those tested do not change what is predicted for the others."""
    training = trained(normalization="batch", lr=0.02, steps=30, probes=3).training
    data = training.data
    alone = [torch.cat([data.train_images, image[None]]) for image in data.test_images]
    predicted = torch.stack([training.network.outputs(training.w, images, batch=30)[-1].argmax() for images in alone])
    wild = dataclasses.replace(
        data,
        test_images=torch.cat([data.test_images, 50 + 20 * data.test_images]),
        test_labels=torch.cat([predicted, torch.full_like(predicted, -1)]),  # of the wild ones none is right
    )
    assert Training(training.run, wild)._test_error(training.w) == 0.5


INTERRUPTED: dict[str, tuple[int, dict[str, Any]]] = {
    "before the edge": (75, {}),
    "after the kick, among looks at several directions": (294, {"pairs_every": 4}),
    "weight": (25, {"normalization": "weight", "lr": 0.1, "l2": 0.02, "steps": 100, "probes": 10}),
}


@pytest.mark.parametrize("when", INTERRUPTED)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(when: str) -> None:
    stop, settings = INTERRUPTED[when]
    run = checks.small_run(0, **AT_THE_EDGE | settings)
    data, saved = load(tensors(), run, CPU), dict[int, bytes]()
    whole = train(run, data, after_step=lambda training: saved.update({training.step: training.save()}))
    resumed = train(run, data, saved=saved[stop])
    assert resumed.rows == whole.rows
    assert torch.equal(resumed.w, whole.w)
    assert resumed.seconds > 0


def test_a_run_that_diverges_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Training, "require_stable_start", lambda self: None)
    training = trained(lr=50.0, l2=0.5, steps=400, probes=2).training
    assert training.diverged
    assert training.rows[-1] == (training.step, "", "diverged", 1.0)
    assert training.step < training.steps


def test_the_study_knows_the_size_of_a_run_and_how_it_ended() -> None:
    assert "edge at step 1,200" in STUDY.outcome({"edge_step": 1200.0, "test_error": 0.2})
    assert "20.0 %" in STUDY.outcome({"edge_step": float("nan"), "test_error": 0.2})
    short = checks.small_run(0)
    for run in (short, checks.small_run(0, network="cnn")):
        assert parameters(run)[0] == int(Training(run, load(tensors(), short, CPU)).network.penalized.sum())
