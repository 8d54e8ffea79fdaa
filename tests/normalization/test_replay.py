"""The replay of a penalty's effective learning rate: the same training in exact arithmetic, and not by another rate."""

from typing import Any

import pytest
import torch
from torch import Tensor

from effective_lr.studies.normalization import replay
from effective_lr.studies.normalization.checks import NO_EPS
from effective_lr.studies.normalization.data import Splits
from effective_lr.studies.normalization.networks import normalized_layers
from effective_lr.studies.normalization.training import Training, batches, train
from shared import INVARIANT, make_run

STRONG: dict[str, Any] = {"lr": 0.2, "l2": 0.1, "norm_eps": NO_EPS, "initial_norm": 1.3, "steps": 40}


def directions(training: Training) -> list[Tensor]:
    """w/‖w‖ of every scale group."""
    layers = [layer for _, layer in normalized_layers(training.network)]
    return [layer.weight.detach() / layer.group_norms().detach().view(layer.group_shape) for layer in layers]


def distance(one: Training, other: Training) -> float:
    """The largest difference of a direction, and of what γ and β are."""
    pairs = zip(directions(one), directions(other), strict=True)
    affine = [
        (ours - theirs).abs().max()
        for (name, ours), (_, theirs) in zip(one.weights.items(), other.weights.items(), strict=True)
        if not name.endswith("weight")
    ]
    return float(max([*affine, *((u - v).abs().max() for u, v in pairs)]))


@pytest.mark.parametrize("loop", ["closed", "open"])
@pytest.mark.parametrize("normalization", INVARIANT)
def test_in_float64_the_replay_is_the_decayed_training(normalization: str, loop: str, small_splits: Splits) -> None:
    settings = {**STRONG, "normalization": normalization}
    decayed = train(make_run(**settings), small_splits, dtype=torch.float64)
    replayed = train(make_run(**settings, replay=loop), small_splits, dtype=torch.float64)
    free = train(make_run(**{**settings, "l2": 0}), small_splits, dtype=torch.float64)
    assert distance(decayed, replayed) < 1e-9
    assert distance(decayed, free) > 1e-2  # the penalty does change the training
    for _, layer in replayed.layers:  # and no norm was free
        torch.testing.assert_close(layer.group_norms().detach(), torch.ones_like(layer.group_norms()))


def test_a_replay_that_forgets_the_penalty_is_another_training(
    small_splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    decayed = train(make_run(**STRONG), small_splits, dtype=torch.float64)
    followed = replay.Replay.factors

    def never_shrinks(self: replay.Replay, images: Tensor, labels: Tensor) -> list[Tensor]:
        run, self.run = self.run, self.run.changed(l2=1e-9)
        try:
            return followed(self, images, labels)
        finally:
            self.run = run

    monkeypatch.setattr(replay.Replay, "factors", never_shrinks)
    wrong = train(make_run(**STRONG, replay="closed"), small_splits, dtype=torch.float64)
    assert distance(decayed, wrong) > 1e-3


def test_the_slow_replay_has_one_rate_for_each_layer_from_earlier_gradients(small_splits: Splits) -> None:
    """The recursion by hand: each step's factors, from the mean gradients of the steps before it alone."""
    run = make_run(**STRONG, replay="slow").changed(steps=120)
    kept, squares, means = 1 - 2 * run.lr * run.l2, [1.3**2] * 4, [0.0] * 4
    training = Training(run, small_splits, torch.float64)
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


@pytest.mark.parametrize("loop", ["closed", "open", "slow"])
def test_a_replay_does_not_touch_the_penalty_of_its_settings(loop: str, single: Splits) -> None:
    training = Training(make_run(**STRONG, replay=loop), single)
    assert training.optimizer.weights.penalties == [0.0] * 4
