"""Stacked networks against PyTorch's own modules, optimizers and automatic differentiation, one network after another;
penalties against dense matrices, the proximal map against its definition."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch import Tensor, nn

from effective_lr.studies.norms import networks, theory
from effective_lr.studies.norms.base import Stage
from effective_lr.studies.norms.data import Scaler, design, simulate
from effective_lr.studies.norms.networks import Networks
from effective_lr.studies.norms.penalties import FORMS, Penalties, metric_power, metrics
from effective_lr.studies.norms.settings import Arm, Run
from effective_lr.studies.norms.stack import Stack, form

from .conftest import CPU, measured


def of_arm(parts: list[Tensor], arm: int) -> list[Tensor]:
    """What is of one network, in the shapes of torch.nn."""
    w1, b1, w2, b2 = parts
    return [w1[:, arm].T, b1[arm], w2[arm][None], b2[arm][None]]


@pytest.mark.parametrize("eps", [None, 1e-3])
@pytest.mark.parametrize("classes", [False, True])
def test_outputs_losses_and_gradients_are_those_of_pytorch_modules(eps: float | None, classes: bool) -> None:
    torch.manual_seed(0)
    x, *start = (torch.randn(*shape).double() for shape in ((9, 5), (5, 3, 4), (3, 4), (3, 4), (3,)))
    y = (x[:, 0] > 0).double() if classes else x[:, 0] * x[:, 1]
    nets = Networks(*start, eps)
    loss, gradients = nets.loss_gradients(x, y, classes)
    for arm in range(3):
        first, last = nn.Linear(5, 4, bias=eps is None).double(), nn.Linear(4, 1).double()
        norm = nn.BatchNorm1d(4, eps=eps or 0.0).double()
        parameters = [first.weight, (norm if eps else first).bias, last.weight, last.bias]
        for parameter, value in zip(parameters, of_arm(start, arm), strict=True):
            parameter.data = value
        outputs = nn.Sequential(first, *([norm] if eps else []), nn.ReLU(), last, nn.Flatten(0))(x)
        criterion = nn.functional.binary_cross_entropy_with_logits if classes else nn.functional.mse_loss
        expected = criterion(outputs, y)
        assert_allclose(nets.outputs(x)[:, arm], outputs.detach(), atol=1e-12)
        assert_allclose(loss[arm], expected.detach(), rtol=1e-12)
        for mine, slope in zip(of_arm(gradients, arm), torch.autograd.grad(expected, parameters), strict=True):
            assert_allclose(mine, slope, atol=1e-12)


def test_a_run_is_pytorch_s_own_training_of_each_network() -> None:
    """One network after another with torch.optim.SGD: same start, batches, clipping and drop of the learning rate."""
    run = Run(
        kind="network", rho=0.5, truth="dense", inputs=6, train_size=20, validation_size=10, test_size=30, hidden=4,
        arms="none: 0; l2: 0.1", batch_size=8, steps=30, seed=3, clip=1.0,
    )  # fmt: skip
    found, task = measured(run), simulate(run)
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
        expected = float(error.square().mean().sqrt())
        assert found[name, "test_rmse"] == pytest.approx(expected, rel=1e-6)  # PyTorch adds 1e-6 to the norm


ARMS = [
    Arm("none", 0.0), Arm("ridge", 0.3), Arm("lasso+", 0.2), Arm("elastic", 0.4), Arm("covridge", 0.5, 0.1),
    Arm("sparridge", 0.5, 0.2), Arm("covridge-all", 0.3, 0.2), Arm("sparridge-all", 0.3, 0.1),
]  # fmt: skip


def objective(stack: Stack, arm: int, x: Tensor, y: Tensor, whole: Tensor, delta: float) -> Tensor:
    """The loss of one network with its penalty, C from the samples `whole`, held fixed."""
    h, reference, penalty, mine = x, whole, torch.zeros(()), form(ARMS[arm])
    for layer in range(3):
        w, bias = stack.of_arm(layer)[arm], stack.biases[layer].view(len(ARMS), -1)[arm]
        c = reference.T @ reference / len(reference) + delta * torch.eye(len(w))
        if layer < mine.layers:
            penalty = penalty + mine.covariance * torch.trace(w.T @ c.detach() @ w)
            penalty = penalty + mine.squares * w.square().sum() + mine.absolute * w.abs().sum()
        h, reference = (part @ w + bias for part in (h, reference))
        if layer < 2:
            h, reference = h.relu(), reference.relu()
    loss = nn.functional.mse_loss(h[:, 0], y) if h.shape[1] == 1 else nn.functional.cross_entropy(h, y.long())
    return loss + penalty


@pytest.mark.parametrize(("p", "classes"), [(5, 1), (5, 3), (40, 1)])
def test_stacks_have_the_gradients_of_the_reported_penalties(p: int, classes: int) -> None:
    """Against automatic differentiation, more inputs than samples included, and classes."""
    generator = torch.Generator().manual_seed(p)
    whole = torch.randn(12, p, generator=generator)
    y = torch.randint(classes, (8,), generator=generator) if classes > 1 else torch.randn(8, generator=generator)
    stack = Stack(ARMS, (p, 6, 4, classes), 3, 1e-3, CPU)
    found = stack.gradients(whole[:8], y)
    stack.add_penalties(found, stack.covariances(whole, 0.1), 0.1)
    for parameter in stack.parameters:
        parameter.requires_grad_()
    total = torch.stack([objective(stack, arm, whole[:8], y, whole, 0.1) for arm in range(len(ARMS))]).sum()
    for mine, expected in zip(found, torch.autograd.grad(total, stack.parameters), strict=True):
        assert_allclose(mine, expected, atol=2e-5)


def test_a_tuned_run_is_adam_on_each_network_and_chooses_by_the_folds() -> None:
    """One network after another with torch.optim.Adam: same start, batches and folds. ridge+ may choose ridge's arm."""
    run = Run(
        kind="tuned", correlation="equal", truth="linear", rho=0.5, inputs=4, support=3, train_size=18, test_size=6,
        folds=3, hidden=5, second=3, lr=0.05, batch_size=8, steps=4, seed=1, noise=0.5,
        arms="none: 0; ridge: 0.01 2; ridge+: 5; covridge: 0.1 1",
    )  # fmt: skip
    rows = measured(run)
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
        for batch in (order[:8], order[8:16], order[16:]):
            optimizer.zero_grad()
            loss = (stack.outputs(x[batch])[0, :, 0] - y[batch]).square().mean()
            (loss + strength * sum(w.square().sum() for w in stack.weights)).backward()
            optimizer.step()
    error = stack.outputs(scale(task.test_x).float())[0, :, 0].detach().numpy() - task.test_y
    assert rows["ridge", "test_mse"] == pytest.approx(np.square(error).mean(), rel=1e-3)


# The penalties of the first registration

OLD_ARMS = [Arm(penalty, 0.3) for penalty in FORMS if penalty != "adaptive"]


def inputs(samples: int, p: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(p, p, generator=generator, dtype=torch.float64)
    return torch.randn(samples, p, generator=generator, dtype=torch.float64) @ mixed + 3.0


@pytest.mark.parametrize(("samples", "p"), [(30, 7), (7, 7), (5, 12), (2, 12)])
def test_values_and_gradients_are_those_of_dense_matrices(samples: int, p: int) -> None:
    """With powers of the shrunk covariance, of trace p; where p > n by products with the samples and Woodbury's
    identity."""
    x = inputs(samples, p)
    penalties = Penalties(OLD_ARMS, metrics(x, 0.05, OLD_ARMS))
    w = torch.randn(p, len(OLD_ARMS), 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for i, arm in enumerate(penalties.arms):
        metric, l2, l1 = FORMS[arm.penalty]
        power = {"identity": 0, "car": 1, "inverse": -1}[metric]
        matrix = theory.power(np.cov(x.numpy().T, bias=True), power, e=0.05)
        matrix *= p / np.trace(matrix)
        mine = w[:, i].numpy()
        expected = arm.strength * (l2 * np.trace(mine.T @ matrix @ mine) + l1 * np.abs(mine).sum())
        assert float(penalties.value(w)[i]) == pytest.approx(expected, rel=1e-9)
        slope = 2 * arm.strength * l2 * matrix @ mine  # of the quadratic part
        assert_allclose(penalties.gradient(w)[:, i], slope, atol=1e-9 * np.abs(matrix).max())


def test_singular_covariance_has_no_inverse_and_the_error_names_what_to_do() -> None:
    x = inputs(30, 5)
    x[:, 2] = 4.0  # a constant input
    for singular, match in [(x, r"shrinkage = 0.*5 inputs in 30 samples.*shrinkage > 0"), (inputs(4, 9), "9 inputs")]:
        with pytest.raises(ValueError, match=match):
            metric_power(singular, -1, 0.0)
    direction = torch.eye(5, dtype=torch.float64)[2][:, None, None]
    assert metric_power(x, 1, 0.0)(direction).abs().max() < 1e-12  # CAR does not see it
    assert metric_power(x, 1, 0.05)(direction)[2] > 0.01


@given(w=st.floats(-3, 3), threshold=st.floats(0.01, 2), other=st.floats(-4, 4))
def test_prox_is_the_minimum_that_defines_it(w: float, threshold: float, other: float) -> None:
    """argmin over z of ½(z − w)² + threshold·|z|: no other z is better, and |w| ≤ threshold gives an exact 0."""
    weights = torch.tensor([[[w]]], dtype=torch.float64)
    Penalties([Arm("l1", threshold)], {}).prox(weights, lr=1.0)
    z = float(weights)
    assert (z - w) ** 2 / 2 + threshold * abs(z) <= (other - w) ** 2 / 2 + threshold * abs(other) + 1e-12
    assert (z == 0) == (abs(w) <= threshold)


def test_prox_takes_the_weights_of_adaptive_l1() -> None:
    weights = torch.ones(3, 2, 1, dtype=torch.float64)
    penalties = Penalties([Arm("adaptive", 0.1), Arm("adaptive", 0.2)], {}, torch.tensor([1.0, 2.0, 100.0]).double())
    penalties.prox(weights, lr=1.0)
    assert_allclose(weights[:, :, 0], [[0.9, 0.8], [0.8, 0.6], [0.0, 0.0]])
