"""Stacked networks against PyTorch's own modules, optimizer and automatic differentiation, one network after
another."""

import itertools

import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor, nn

from effective_lr.studies.norms import networks
from effective_lr.studies.norms.data import simulate
from effective_lr.studies.norms.networks import Networks
from effective_lr.studies.norms.settings import Run
from effective_lr.studies.norms.training import Stage, load, train


def stacked(arms: int = 3, eps: float | None = None) -> Networks:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return Networks(draw(5, arms, 4), draw(arms, 4), draw(arms, 4), draw(arms), eps)


X = torch.randn(9, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_gradients_are_those_of_automatic_differentiation() -> None:
    for eps, classes in itertools.product((None, 1e-3), (False, True)):
        nets = stacked(eps=eps)
        y = (X[:, 0] > 0).double() if classes else X[:, 0] * X[:, 1]
        loss, gradients = nets.loss_gradients(X, y, classes)
        for parameter in nets.parameters:
            parameter.requires_grad_()
        criterion = nn.functional.binary_cross_entropy_with_logits if classes else nn.functional.mse_loss
        losses = torch.stack([criterion(output, y) for output in nets.outputs(X).unbind(1)])
        assert_allclose(loss, losses.detach(), rtol=1e-12)
        for found, expected in zip(gradients, torch.autograd.grad(losses.sum(), nets.parameters), strict=True):
            assert_allclose(found, expected, atol=1e-12)


def test_outputs_are_those_of_pytorch_modules() -> None:
    for eps, arm in itertools.product((None, 1e-5), range(3)):
        nets = stacked(eps=eps)
        first, last = nn.Linear(5, 4, bias=eps is None).double(), nn.Linear(4, 1).double()
        norm = nn.BatchNorm1d(4, eps=eps or 0.0).double()
        with torch.no_grad():
            first.weight.copy_(nets.w1[:, arm].T)
            (norm if eps else first).bias.copy_(nets.b1[arm])
            last.weight.copy_(nets.w2[arm][None])
            last.bias.copy_(nets.b2[arm])
        module = nn.Sequential(first, *([norm] if eps else []), nn.ReLU(), last)
        assert_allclose(nets.outputs(X)[:, arm], module(X)[:, 0].detach(), atol=1e-12)


def test_clip_scales_only_what_is_longer() -> None:
    gradients = [g.clone() for g in stacked().parameters]
    gradients[0][:, 1] *= 1e-3
    gradients[1][1] = gradients[2][1] = gradients[3][1] = 1e-3
    before = [g.clone() for g in gradients]
    networks.clip(gradients, 1.0)
    w1, b1, w2, b2 = gradients
    lengths = (w1.square().sum((0, 2)) + b1.square().sum(1) + w2.square().sum(1) + b2.square()).sqrt()
    assert_allclose(lengths[[0, 2]], 1.0, rtol=1e-12)
    assert_allclose(w1[:, 1], before[0][:, 1])


def test_arms_start_alike_and_held_units_have_norm_1() -> None:
    nets = networks.start(p=6, arms=4, units=3, gain=2.0, seed=7)
    assert (nets.w1 == nets.w1[:, :1]).all()
    networks.hold(nets.w1)
    assert_allclose(nets.w1.norm(dim=0), 1.0, rtol=1e-12)


def test_a_run_is_pytorch_s_own_training_of_each_network() -> None:
    """One network after another with torch.optim.SGD: same start, batches, clipping and drop of the learning rate."""
    run = Run(
        kind="network", rho=0.5, truth="dense", inputs=6, train_size=20, validation_size=10, test_size=30, hidden=4,
        arms="none: 0; l2: 0.1", batch_size=8, steps=30, seed=3, clip=1.0,
    )  # fmt: skip
    training = train(run, load({}, run, torch.device("cpu")))
    task = simulate(run)
    stage = Stage(run, task.train_x, task.train_y, [])
    for strength, name in ((0.0, "none/0"), (0.1, "l2/0.1")):
        nets = networks.start(6, 1, 4, run.start_gain, run.seed)
        for parameter in nets.parameters:
            parameter.requires_grad_()
        optimizer = torch.optim.SGD(nets.parameters, run.lr, run.momentum)
        for step in range(run.steps):
            optimizer.param_groups[0]["lr"] = run.lr * (0.1 if step >= 0.7 * run.steps else 1.0)
            x, y = stage.batch(step)
            optimizer.zero_grad()
            loss = (nets.outputs(x)[:, 0] - y).square().mean()
            loss = loss + strength * (nets.w1.square().sum() + nets.w2.square().sum())
            loss.backward()
            nn.utils.clip_grad_norm_(nets.parameters, run.clip)
            optimizer.step()
        error = nets.outputs(torch.from_numpy(task.test_x))[:, 0].detach() - torch.from_numpy(task.test_y)
        found = next(v for _, arm, what, v in training.rows if arm == name and what == "test_rmse")
        assert found == pytest.approx(float(error.square().mean().sqrt()), rel=1e-6)  # PyTorch adds 1e-6 to the norm
