"""The replay of a penalty's effective learning rate: the same training in exact arithmetic, and not by another rate."""

from typing import Any

import pytest
import torch
from torch import Tensor

from effective_lr.studies.normalization.checks import NO_EPS
from effective_lr.studies.normalization.data import Splits
from effective_lr.studies.normalization.training import Training, batches, train
from shared import INVARIANT, make_run

STRONG: dict[str, Any] = {"lr": 0.2, "l2": 0.1, "norm_eps": NO_EPS, "initial_norm": 1.3, "steps": 40}


def trained_parts(training: Training) -> list[Tensor]:
    """w/‖w‖ of every scale group, γ and β: all that a function depends on."""
    layers = [layer for _, layer in training.layers]
    directions = [layer.weight / layer.group_norms().view(layer.group_shape) for layer in layers]
    return directions + [value for name, value in training.weights.items() if not name.endswith("weight")]


def distance(one: Training, other: Training) -> float:
    """The largest difference."""
    pairs = zip(trained_parts(one), trained_parts(other), strict=True)
    return max(float((ours - theirs).detach().abs().max()) for ours, theirs in pairs)


@pytest.mark.parametrize("loop", ["closed", "open"])
@pytest.mark.parametrize("normalization", INVARIANT)
def test_in_float64_the_replay_is_the_decayed_training(normalization: str, loop: str, small_splits: Splits) -> None:
    def trained(**changes: Any) -> Training:
        run = make_run(**{**STRONG, "normalization": normalization, **changes})
        return train(run, small_splits, dtype=torch.float64)

    decayed, replayed = trained(), trained(replay=loop)
    assert distance(decayed, replayed) < 1e-9
    assert distance(decayed, trained(l2=0)) > 1e-2  # the penalty does change the training
    assert distance(decayed, trained(replay=loop, l2=0.09)) > 1e-3  # and another one changes it otherwise
    for _, layer in replayed.layers:  # and no norm was free
        torch.testing.assert_close(layer.group_norms().detach(), torch.ones_like(layer.group_norms()))


def test_the_slow_replay_has_one_rate_for_each_layer_from_earlier_gradients(small_splits: Splits) -> None:
    """The recursion by hand: each step's factors, from the mean gradients of the steps before it alone."""
    run = make_run(**STRONG, replay="slow").changed(steps=120)
    kept, squares, means = 1 - 2 * run.lr * run.l2, [1.3**2] * 4, [0.0] * 4
    training = Training(run, small_splits, torch.float64)
    assert training.optimizer.weights.penalties == [0.0] * 4
    for count, batch in enumerate(batches(run, torch.device("cpu")), start=1):
        before = [layer.group_norms().detach() ** 2 for _, layer in training.layers]
        training.advance(batch)
        factors: Any = training.optimizer.weights.factors
        for k, (_, layer) in enumerate(training.layers):
            assert layer.weight.grad is not None
            torch.testing.assert_close(factors[k].flatten(), before[k] / (squares[k] * kept))
            mean = float((layer.group_norms(layer.weight.grad) ** 2 * before[k]).mean())
            means[k] += (mean - means[k]) / min(count, 100)
            squares[k] = kept**2 * squares[k] + run.lr**2 * means[k] / squares[k]
            torch.testing.assert_close(layer.group_norms().detach(), torch.ones_like(before[k]))
