"""The exact symmetries of training with a normalization: other settings, the same function. In float64."""

import pytest
import torch
from conftest import INVARIANT, make_run
from torch.nn import functional as F
from torch.testing import assert_close

from effective_lr.config import Run
from effective_lr.data import Splits
from effective_lr.networks import build_network, normalized_layers
from effective_lr.optimizers import Optimizer
from effective_lr.training import batches

SCALES = [1 / 8, 1 / 2, 3.0, 10.0]
SETTINGS = {
    "sgd": {"lr": 0.2, "l2": 0.05},
    "momentum": {"lr": 0.02, "l2": 0.05},
    "nesterov": {"lr": 0.02, "l2": 0.05},
    "adam": {"lr": 0.01, "l2": 0.02},
    "rmsprop": {"lr": 0.01, "l2": 0.02},
    "adamw": {"lr": 0.01, "l2": 1.0},
}


def rescaled(run: Run, a: float, keep: str = "") -> Run:
    """The run that starts from aw and trains the same function; the setting `keep` is left as it is."""
    lr_power, l2_power = {"adam": (1, 2), "rmsprop": (1, 2), "adamw": (1, 1)}.get(run.optimizer, (2, 2))
    changes = {
        "initial_norm": run.initial_norm * a,
        "lr": run.lr * a**lr_power,
        "l2": run.l2 / a**l2_power,
        "norm_eps": run.norm_eps * a**2,
        "optimizer_eps": run.optimizer_eps / a,
    }
    return make_run(**{**run.model_dump(), **changes, **({keep: getattr(run, keep)} if keep else {})})


class Trained:
    """Losses (steps,), and at the end the held-out logits by the statistics of the held-out images."""

    def __init__(self, run: Run, splits: Splits, affine_eps: float) -> None:
        self.network = build_network(run, torch.float64)
        optimizer = Optimizer(run, self.network)
        # One ε serves all parameters of a run, but the gradients of γ and β do not scale: theirs stays.
        optimizer.affine.eps = affine_eps
        layers = [layer for _, layer in normalized_layers(self.network)]
        self.start = [layer.group_norms().detach().square() for layer in layers]
        self.slopes = [torch.zeros_like(norms) for norms in self.start]
        losses = []
        for t, batch in enumerate(batches(run, torch.device("cpu"))):
            self.schedule(t, optimizer)
            loss = F.cross_entropy(self.network(splits.train_images[batch]), splits.train_labels[batch])
            optimizer.zero_grad()
            loss.backward()
            for layer, slopes in zip(layers, self.slopes, strict=True):
                slopes += layer.group_norms(layer.weight.grad).square()
            optimizer.step()
            losses.append(float(loss.detach()))
        self.schedule(run.steps, optimizer)
        self.end = [layer.group_norms().detach().square() for layer in layers]
        self.losses = torch.tensor(losses, dtype=torch.float64)
        self.logits = self.network(splits.test_images).detach()  # the statistics of these images

    def schedule(self, t: int, optimizer: Optimizer) -> None:
        """What changes at step t."""

    def distance(self, other: "Trained") -> float:
        """The largest difference in losses and logits, relative to the largest value."""
        pairs = [(self.losses, other.losses), (self.logits, other.logits)]
        return max(float((x - y).abs().max() / x.abs().max()) for x, y in pairs)


class Bench:
    """Trains runs on the small data."""

    def __init__(self, splits: Splits) -> None:
        self.splits = splits

    def distance(self, run: Run, other: Run) -> float:
        first, second = (Trained(r, self.splits, affine_eps=run.optimizer_eps) for r in (run, other))
        assert not torch.allclose(first.losses, first.losses[0], rtol=0.05)  # it has trained
        return first.distance(second)


@pytest.fixture(scope="module")
def bench(small_splits: Splits) -> Bench:
    return Bench(small_splits)


def symmetry_run(normalization: str, optimizer: str, **changes: float) -> Run:
    return make_run(normalization=normalization, optimizer=optimizer, **{**SETTINGS[optimizer], **changes})


@pytest.mark.parametrize("normalization", INVARIANT)
@pytest.mark.parametrize("optimizer", SETTINGS)
def test_rescaled_training_is_the_same_function(optimizer: str, normalization: str, bench: Bench) -> None:
    run = symmetry_run(normalization, optimizer)
    assert {f"{a:g}": bench.distance(run, rescaled(run, a)) for a in SCALES} == pytest.approx(
        {f"{a:g}": 0 for a in SCALES}, abs=1e-9
    )


@pytest.mark.parametrize("setting", ["lr", "l2", "initial_norm"])
@pytest.mark.parametrize("optimizer", SETTINGS)
def test_every_part_of_the_rescaling_is_needed(optimizer: str, setting: str, bench: Bench) -> None:
    run = symmetry_run("batch", optimizer)
    assert bench.distance(run, rescaled(run, 3.0, keep=setting)) > 1e-3


@pytest.mark.parametrize("optimizer", SETTINGS)
def test_without_normalization_rescaled_training_is_another_function(optimizer: str, bench: Bench) -> None:
    run = symmetry_run("none", optimizer)
    assert bench.distance(run, rescaled(run, 0.5)) > 1e-2


@pytest.mark.parametrize("normalization", ["batch", "layer"])
def test_unscaled_norm_eps_ends_the_symmetry_at_small_norms(normalization: str, bench: Bench) -> None:
    run = symmetry_run(normalization, "sgd")
    assert bench.distance(run, rescaled(run, 1e-3)) < 1e-9
    assert bench.distance(run, rescaled(run, 1e-3, keep="norm_eps")) > 1e-2


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "adamw"])
def test_unscaled_optimizer_eps_ends_the_symmetry(optimizer: str, bench: Bench) -> None:
    """At large a the gradient is small and ε is not: the effective ε of a weight is ε·a."""
    run = symmetry_run("weight", optimizer, optimizer_eps=1e-5)
    assert bench.distance(run, rescaled(run, 1e3)) < 1e-9
    assert bench.distance(run, rescaled(run, 1e3, keep="optimizer_eps")) > 1e-2


@pytest.mark.parametrize("normalization", INVARIANT)
def test_sgd_without_penalty_obeys_pythagoras(normalization: str, small_splits: Splits) -> None:
    """‖w_T‖² = ‖w₀‖² + η² Σ ‖g_t‖² in every scale group."""
    run = symmetry_run(normalization, "sgd", l2=0, norm_eps=1e-20)
    trained = Trained(run, small_splits, affine_eps=0)
    for end, start, slopes in zip(trained.end, trained.start, trained.slopes, strict=True):
        assert_close(end, start + run.lr**2 * slopes, rtol=1e-12, atol=0)
        assert bool((end >= start).all()) and float(end.max()) > 1.001 * float(start.max())


def test_momentum_or_penalty_ends_pythagoras(small_splits: Splits) -> None:
    for run in (symmetry_run("weight", "momentum", l2=0), symmetry_run("weight", "sgd")):
        trained = Trained(run, small_splits, affine_eps=0)
        assert not torch.allclose(trained.end[0], trained.start[0] + run.lr**2 * trained.slopes[0], rtol=1e-4)


@pytest.mark.parametrize("normalization", INVARIANT)
def test_penalty_is_a_growing_learning_rate(normalization: str, small_splits: Splits) -> None:
    """Li & Arora (2020): SGD with (η, wd = 2λ) is SGD without, at η_t = η(1 − ηwd)^(−2t−1); ε follows the norm."""
    run = symmetry_run(normalization, "sgd")
    shrink = 1 - run.lr * 2 * run.l2

    class Growing(Trained):
        def schedule(self, t: int, optimizer: Optimizer) -> None:
            optimizer.weights.lr = run.lr * shrink ** (-2 * t - 1)
            for _, layer in normalized_layers(self.network):
                layer.eps = run.norm_eps * shrink ** (-2 * t)

    penalised = Trained(run, small_splits, affine_eps=0)
    plain = make_run(**{**run.model_dump(), "l2": 0})
    assert penalised.distance(Growing(plain, small_splits, affine_eps=0)) < 1e-9
    assert penalised.distance(Trained(plain, small_splits, affine_eps=0)) > 1e-3


@pytest.mark.parametrize("optimizer", SETTINGS)
def test_learning_rate_of_gamma_and_beta_is_not_rescaled(optimizer: str) -> None:
    """They are not scale invariant: theirs must stay when that of the weights is rescaled."""
    run = symmetry_run("batch", optimizer)
    for chosen in (run, rescaled(run, 10.0)):
        optimizer = Optimizer(chosen, build_network(chosen))
        assert (optimizer.weights.lr, optimizer.affine.lr) == (chosen.lr, run.affine_lr)
        assert (optimizer.weights.l2, optimizer.affine.l2) == (chosen.l2, 0)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_shared_learning_rate_of_gamma_and_beta_ends_the_symmetry(optimizer: str, bench: Bench) -> None:
    run = make_run(**{**symmetry_run("batch", optimizer).model_dump(), "affine_lr": "shared"})
    assert bench.distance(run, rescaled(run, 3.0)) > 1e-3
