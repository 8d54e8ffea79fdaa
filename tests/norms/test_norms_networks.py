"""Stacked networks against PyTorch's own modules, optimizer and automatic differentiation, one network after
another."""

import itertools

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor, nn

from effective_lr.studies.norms import networks
from effective_lr.studies.norms.base import Stage
from effective_lr.studies.norms.data import CPU, Scaler, design, simulate
from effective_lr.studies.norms.networks import Networks
from effective_lr.studies.norms.settings import Arm, Run
from effective_lr.studies.norms.stack import Stack, form
from effective_lr.studies.norms.training import load, train


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


ARMS = [
    Arm("none", 0.0), Arm("ridge", 0.3), Arm("lasso+", 0.2), Arm("elastic", 0.4), Arm("covridge", 0.5, 0.1),
    Arm("sparridge", 0.5, 0.2), Arm("covridge-all", 0.3, 0.2), Arm("sparridge-all", 0.3, 0.1),
]  # fmt: skip


def objective(stack: Stack, arm: int, x: Tensor, y: Tensor, whole: Tensor, delta: float) -> Tensor:
    """The loss of one network with its penalty, by PyTorch's own modules, C from the samples `whole`, held fixed."""
    parts, h, reference = [stack.of_arm(layer)[arm] for layer in range(3)], x, whole
    penalty, mine = torch.zeros(()), form(ARMS[arm])
    for layer, w in enumerate(parts):
        bias = stack.biases[layer].view(len(ARMS), -1)[arm]
        c = reference.T @ reference / len(reference) + delta * torch.eye(len(w))
        if layer < mine.layers:
            penalty = penalty + mine.covariance * torch.trace(w.T @ c.detach() @ w)
            penalty = penalty + mine.squares * w.square().sum() + mine.absolute * w.abs().sum()
        h, reference = (part @ w + bias for part in (h, reference))
        if layer < 2:
            h, reference = h.relu(), reference.relu()
    loss = nn.functional.mse_loss(h[:, 0], y) if h.shape[1] == 1 else nn.functional.cross_entropy(h, y.long())
    return loss + penalty


def test_stacks_have_the_gradients_of_the_reported_penalties() -> None:
    """Against automatic differentiation, more inputs than samples included, and classes."""
    for p, c in ((5, 1), (5, 3), (40, 1)):
        generator = torch.Generator().manual_seed(p)
        whole = torch.randn(12, p, generator=generator)
        y = torch.randint(c, (12,), generator=generator) if c > 1 else torch.randn(12, generator=generator)
        stack = Stack(ARMS, (p, 6, 4, c), 3, 1e-3, CPU)
        x = whole[:8]
        found = stack.gradients(x, y[:8])
        stack.add_penalties(found, stack.covariances(whole, 0.1), 0.1)
        for parameter in stack.parameters:
            parameter.requires_grad_()
        total = sum(objective(stack, arm, x, y[:8], whole, 0.1) for arm in range(len(ARMS)))
        assert isinstance(total, Tensor)
        for mine, expected in zip(found, torch.autograd.grad(total, stack.parameters), strict=True):
            assert_allclose(mine, expected, atol=2e-5)


def test_a_tuned_run_is_adam_on_each_network_and_chooses_by_the_folds() -> None:
    """One network after another with torch.optim.Adam: same start, batches and folds. ridge+ may choose ridge's arm."""
    run = Run(
        kind="tuned", correlation="equal", truth="linear", rho=0.5, inputs=4, support=3, train_size=18, test_size=6,
        folds=3, hidden=5, second=3, lr=0.05, batch_size=8, steps=4, seed=1, noise=0.5,
        arms="none: 0; ridge: 0.01 2; ridge+: 5; covridge: 0.1 1",
    )  # fmt: skip
    rows = {(arm, what): v for _, arm, what, v in train(run, load({}, run, CPU)).rows}
    for penalty, start in (("ridge", "ridge/"), ("covridge", "covridge/"), ("ridge+", "ridge")):
        least = min(v for (arm, what), v in rows.items() if what == "cv_loss" and arm.startswith(start) and "/" in arm)
        assert rows[penalty, "cv_loss"] == least
    assert rows["ridge+", "strength"] == rows["ridge", "strength"] and rows["ridge", "at_end"] == 1
    task = design(run)
    scale = Scaler(task.train_x)
    x, y = scale(task.train_x).float(), torch.from_numpy(task.train_y).float()
    strength = rows["ridge", "strength"]
    stack = Stack([Arm("ridge", strength)], (4, 5, 3, 1), run.seed, run.lr, CPU)
    parameters = [parameter.requires_grad_() for parameter in stack.parameters]
    optimizer = torch.optim.Adam(parameters, lr=run.lr)
    for epoch in range(run.steps):
        order = np.random.default_rng([run.seed, 20, 18, epoch]).permutation(18)
        for start in range(0, 18, 8):
            batch = order[start : start + 8]
            optimizer.zero_grad()
            loss = (stack.outputs(x[batch])[0, :, 0] - y[batch]).square().mean()
            (loss + strength * sum(w.square().sum() for w in stack.weights)).backward()
            optimizer.step()
    error = stack.outputs(scale(task.test_x).float())[0, :, 0].detach().numpy() - task.test_y
    assert rows["ridge", "test_mse"] == pytest.approx(np.square(error).mean(), rel=1e-3)
