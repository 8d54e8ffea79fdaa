"""Projections, retractions, msign and the steps that are made of them, in float64 where they are exact."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from effective_lr.studies.manifold import optimizers
from effective_lr.studies.manifold.data import Data
from effective_lr.studies.manifold.networks import GPT, loss
from effective_lr.studies.manifold.optimizers import Optimizer, block_settings, frobenius, msign, normalize, project
from effective_lr.studies.manifold.training import angles

from .conftest import make_run

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(2, 7))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((-2, -1))


@settings(deadline=None, max_examples=50)
@given(SHAPES, st.integers(0, 1000), st.floats(1e-8, 2.0), st.floats(1e-3, 1e3))
def test_a_tangent_step_turns_by_the_arctangent_and_keeps_the_norm(
    shape: tuple[int, int, int], seed: int, angle: float, radius: float
) -> None:
    """The tangent projection is orthogonal and idempotent."""
    weight, x = radius * normalize(random(*shape, seed=seed)), random(*shape, seed=seed + 1)
    tangent, before = project(x, weight), weight.clone()
    assert float((inner(tangent, weight) / radius).abs().max()) < 1e-12
    assert_close(project(tangent, weight), tangent, rtol=0, atol=1e-12)
    assert_close(inner(tangent, x - tangent), torch.zeros(shape[0]).double(), rtol=0, atol=1e-10)
    optimizers.turn(weight, tangent, frobenius(before), angle)
    assert_close(frobenius(weight), frobenius(before))
    expected = torch.full((shape[0],), math.atan(angle), dtype=torch.float64)
    assert_close(angles(before, weight), expected, rtol=1e-6, atol=0)  # which no arccosine would give


def test_the_spectral_projection_is_idempotent_and_keeps_the_norm_to_first_order() -> None:
    weight, x = random(2, 6, 9), random(2, 6, 9, seed=1)
    left, right, size = optimizers.top_singular_vectors(weight, weight[:, :1].mT, 500)
    assert_close(size.flatten(), torch.linalg.matrix_norm(weight, 2))
    tangent = optimizers.project_spectral(x, left, right)
    assert_close(optimizers.project_spectral(tangent, left, right), tangent)
    for direction, is_tangent in [(tangent, True), (x, False)]:
        change = (torch.linalg.matrix_norm(weight + 1e-6 * direction, 2) - size.flatten()) / 1e-6
        assert (bool((change.abs() < 1e-4).all())) is is_tangent


def test_msign_is_near_the_polar_factor() -> None:
    x = random(3, 64, 256)
    left, _, right = torch.linalg.svd(x, full_matrices=False)
    found, square = msign(x), msign(random(3, 64, 64))
    singular = torch.linalg.svdvals(found)
    assert float(singular.min()) > 0.65 and float(singular.max()) < 1.15
    assert float(torch.linalg.svdvals(square).max()) < 1.25
    cosine = inner(found, left @ right) / (frobenius(found) * frobenius(left @ right)).flatten()
    assert float(cosine.min()) > 0.98
    assert_close(msign(x.mT), found.mT)
    assert_close(msign(7 * x), found)


def test_rows_are_normalized_but_for_those_with_hardly_any_gradient() -> None:
    x = random(2, 5, 7)
    x[:, 0] = 0
    x[:, 1] *= 1e-9
    norms = torch.linalg.vector_norm(optimizers.normalize_rows(x), dim=-1)
    assert_close(norms[:, 2:], torch.ones(2, 3).double())
    assert (norms[:, 0] == 0).all() and (norms[:, 1] < 1e-5).all()


def gradients(network: GPT, seed: int) -> None:
    """Random gradients, so that an optimizer's step is all that a test sees."""
    for n, parameter in enumerate(network.parameters()):
        parameter.grad = random(*parameter.shape, seed=100 * seed + n)


@pytest.mark.parametrize("optimizer", ["adamh", "macro-F", "muonh", "macro-S"])
def test_what_each_optimizer_holds_and_by_what_angle_it_turns(optimizer: str) -> None:
    """macro-S follows its top singular value by two power iterations a step."""
    run = make_run(optimizer=optimizer, decay_per_step=0.0025, lr_factor=4.0)
    network = GPT(run, torch.float64)
    stepper = Optimizer(run, network)
    theta = math.sqrt(0.1 / 1.9) * math.sqrt(2 * 0.0025) * 2
    stacks = [*network.blocks(), *network.ends()]
    start = [weight.detach().clone() for _, weight, _ in stacks]
    for step in range(40 if optimizer == "macro-S" else 5):
        before = [weight.detach().clone() for _, weight, _ in stacks]
        gradients(network, step)
        stepper.step()
        for (name, weight, _), old, first in zip(stacks, before, start, strict=True):
            now, is_end = weight.detach(), name in ("embedding", "head")
            found = angles(old, now)
            if is_end or optimizer != "macro-S":
                assert_close(frobenius(now), frobenius(first))
            else:
                norms = torch.linalg.matrix_norm(now, 2), torch.linalg.matrix_norm(first, 2)
                assert_close(*norms, rtol=0.05, atol=0)
            if optimizer in ("adamh", "macro-F") or (is_end and optimizer != "muonh"):
                assert_close(found, torch.full_like(found, math.atan(theta)))
            elif optimizer == "muonh" and step:
                assert float((found / math.atan(theta) - 1).abs().max()) > 1e-5


def test_adamw_is_that_of_torch_with_the_settings_of_each_matrix(data: Data) -> None:
    run = make_run(optimizer="adamw", lr_factor=2.0)
    network, reference = GPT(run, torch.float64), GPT(run, torch.float64)
    stepper, e = Optimizer(run, network), run.decay_per_step
    matrices, groups = [matrix.detach().clone() for _, stack, _ in reference.blocks() for matrix in stack], []
    for matrix in matrices:
        lr = math.sqrt(2 * e / matrix.shape[-1])
        groups.append({"params": [matrix], "lr": 2 * lr, "weight_decay": e / lr})
    adamw = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-12)
    for step in range(6):
        windows = data.windows(torch.arange(4) * 100 + step, run.context + 1)
        network.zero_grad()
        loss(network, windows).backward()
        found = [gradient for _, stack, _ in network.blocks() if stack.grad is not None for gradient in stack.grad]
        for matrix, gradient in zip(matrices, found, strict=True):
            matrix.grad = gradient.clone()
        stepper.step()
        adamw.step()
    for a, b in zip((one for _, stack, _ in network.blocks() for one in stack), matrices, strict=True):
        assert_close(a.detach(), b, rtol=1e-12, atol=1e-14)


def test_adam_starts_with_steps_as_long_as_later_ones() -> None:
    """With the warm-up the first step of Adam is k·η in every entry, that of independent gradients ever after."""
    for warm_up, expected in [(True, math.sqrt(0.1 / 1.9)), (False, 1.0)]:
        run = make_run(optimizer="adam0", warm_up=warm_up)
        network = GPT(run, torch.float64)
        rates = {network.up: block_settings(run, (1, 8))[0], network.positions: 3e-3}
        before = [weight.detach().clone() for weight in rates]
        gradients(network, 0)
        Optimizer(run, network).step()
        for old, (weight, lr) in zip(before, rates.items(), strict=True):
            assert_close((weight.detach() - old).abs(), torch.full_like(old, expected * lr))


def test_the_balance_of_adamw_holds_for_correlated_and_radial_gradients() -> None:
    """X7's law with random gradients, each with a part of the one before; with a radial part, as where the scale
    matters. Without the memory or the radial term it does not hold."""
    run = make_run(layers=1, width=24, decay_per_step=1 / 240)
    for correlation, radial in [(-0.33, 0.0), (0.33, 1.0)]:
        network = GPT(run, torch.float64)
        stepper, weight = Optimizer(run, network), network.attention
        lr, decay = block_settings(run, weight.shape)
        last, scale = random(*weight.shape), random(*weight.shape, seed=1).mul(0.7).exp()
        sums = dict.fromkeys(("weighted_square", "radial", "noise", "memory"), torch.zeros(len(weight)))
        for step in range(1400):
            new, norm = random(*weight.shape, seed=2 + step), frobenius(weight.detach())
            tangent = project(scale * (new + correlation * last), weight.detach())
            weight.grad, last = tangent / norm + radial * weight.detach() / norm**2, new
            if step >= 500:
                sums = {what: sums[what] + value for what, value in stepper.balance(weight).items()}
            stepper.adam.step()  # of this weight alone
            stepper.steps += 1
        left, right = 2 * decay * sums["weighted_square"] + 2 * sums["radial"], sums["noise"] + 18 * sums["memory"]
        assert float((left / (lr * right)).mean()) == pytest.approx(0.98, abs=0.04), (correlation, radial)
        assert abs(float((left / (lr * sums["noise"])).mean()) - 1) > 0.4
        assert (float((left - 2 * sums["radial"]).div(lr * right).mean()) < 0.9) == (radial != 0)


def test_adam_direction_is_that_of_torch() -> None:
    weight = torch.nn.Parameter(random(1, 3, 4))
    start = weight.detach().clone()
    direction = optimizers.AdamDirection(start, make_run())
    adam = torch.optim.Adam([weight], lr=1.0, betas=(0.9, 0.95), eps=1e-12)
    for step in range(4):
        before = weight.detach().clone()
        weight.grad = random(1, 3, 4, seed=step)
        u = direction(weight.grad)
        adam.step()
        assert_close(before - u, weight.detach())
