"""Projections, retractions, msign and the steps that are made of them, in float64 where they are exact."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from effective_lr.studies.manifold import optimizers
from effective_lr.studies.manifold.data import Data
from effective_lr.studies.manifold.networks import GPT, loss
from effective_lr.studies.manifold.optimizers import (
    FrobeniusSphere,
    Optimizer,
    SpectralSphere,
    block_settings,
    frobenius,
    msign,
    normalize,
    normalize_rows,
    project,
    project_spectral,
    top_singular_vectors,
    turn,
)
from effective_lr.studies.manifold.settings import Run
from effective_lr.studies.manifold.training import angles

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(2, 7))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((-2, -1))


@settings(deadline=None, max_examples=50)
@given(SHAPES, st.integers(0, 1000), st.floats(1e-3, 1e3))
def test_the_tangent_projection_is_orthogonal_and_idempotent(
    shape: tuple[int, int, int], seed: int, size: float
) -> None:
    weight, x = size * random(*shape, seed=seed), random(*shape, seed=seed + 1)
    tangent = project(x, weight)
    assert float((inner(tangent, weight) / frobenius(weight).flatten()).abs().max()) < 1e-12
    torch.testing.assert_close(project(tangent, weight), tangent, rtol=0, atol=1e-12)
    torch.testing.assert_close(inner(tangent, x - tangent), torch.zeros(shape[0]).double(), rtol=0, atol=1e-10)


def test_the_spectral_projection_is_idempotent_and_keeps_the_norm_to_first_order() -> None:
    weight, x = random(2, 6, 9), random(2, 6, 9, seed=1)
    left, right, size = top_singular_vectors(weight, weight[:, :1].mT, 500)
    torch.testing.assert_close(size.flatten(), torch.linalg.matrix_norm(weight, 2))
    tangent = project_spectral(x, left, right)
    torch.testing.assert_close(project_spectral(tangent, left, right), tangent)
    step = 1e-6
    for direction, is_tangent in [(tangent, True), (x, False)]:
        change = (torch.linalg.matrix_norm(weight + step * direction, 2) - size.flatten()) / step
        assert (bool((change.abs() < 1e-4).all())) is is_tangent


@settings(deadline=None, max_examples=50)
@given(SHAPES, st.integers(0, 1000), st.floats(1e-3, 2.0), st.floats(0.1, 10))
def test_a_tangent_step_turns_by_the_arctangent_and_keeps_the_norm(
    shape: tuple[int, int, int], seed: int, angle: float, radius: float
) -> None:
    weight = radius * normalize(random(*shape, seed=seed))
    before = weight.clone()
    turn(weight, project(random(*shape, seed=seed + 1), weight), frobenius(before), angle)
    torch.testing.assert_close(frobenius(weight), frobenius(before))
    torch.testing.assert_close(angles(before, weight), torch.full((shape[0],), math.atan(angle)).double())


def test_msign_is_near_the_polar_factor() -> None:
    x = random(3, 64, 256)
    left, _, right = torch.linalg.svd(x, full_matrices=False)
    found = msign(x)
    singular = torch.linalg.svdvals(found)
    assert float(singular.min()) > 0.65
    assert float(singular.max()) < 1.15
    cosine = inner(found, left @ right) / (frobenius(found) * frobenius(left @ right)).flatten()
    assert float(cosine.min()) > 0.98
    torch.testing.assert_close(msign(x.mT), found.mT)
    torch.testing.assert_close(msign(7 * x), found)
    square = torch.linalg.svdvals(msign(random(3, 64, 64)))
    assert float(square.max()) < 1.25


def test_rows_are_normalized_but_for_those_with_hardly_any_gradient() -> None:
    x = random(2, 5, 7)
    x[:, 0] = 0
    x[:, 1] *= 1e-9
    norms = torch.linalg.vector_norm(normalize_rows(x), dim=-1)
    torch.testing.assert_close(norms[:, 2:], torch.ones(2, 3).double())
    assert (norms[:, 0] == 0).all()
    assert (norms[:, 1] < 1e-5).all()


def gradients(network: GPT, seed: int) -> None:
    """Random gradients, so that an optimizer's step is all that a test sees."""
    for n, parameter in enumerate(network.parameters()):
        parameter.grad = random(*parameter.shape, seed=100 * seed + n)


@pytest.mark.parametrize("optimizer", ["adamh", "macro-F", "muonh", "macro-S"])
def test_what_each_optimizer_holds_and_by_what_angle_it_turns(optimizer: str) -> None:
    run = make_run(optimizer=optimizer, decay_per_step=0.02)
    network = GPT(run, torch.float64)
    stepper = Optimizer(run, network)
    theta = math.sqrt(0.1 / 1.9) * math.sqrt(2 * 0.02)
    for step in range(5):
        before = {name: weight.detach().clone() for name, weight, _ in [*network.blocks(), *network.ends()]}
        gradients(network, step)
        stepper.step()
        for name, weight, _ in [*network.blocks(), *network.ends()]:
            now, old = weight.detach(), before[name]
            is_end = name in ("embedding", "head")
            found = angles(old, now)
            if is_end or optimizer in ("adamh", "macro-F", "muonh"):
                torch.testing.assert_close(frobenius(now), frobenius(old))
            if optimizer in ("adamh", "macro-F") or (is_end and optimizer != "muonh"):
                torch.testing.assert_close(found, torch.full_like(found, math.atan(theta)))
            elif optimizer == "muonh" and step:
                assert float((found / math.atan(theta) - 1).abs().max()) > 1e-4
            elif optimizer == "macro-S":
                norms = torch.linalg.matrix_norm(now, 2), torch.linalg.matrix_norm(old, 2)
                torch.testing.assert_close(*norms, rtol=0.05, atol=0)


def test_adamw_is_that_of_torch_with_the_settings_of_each_matrix(data: Data) -> None:
    run = make_run(optimizer="adamw", lr_factor=2.0)
    network, reference = GPT(run, torch.float64), GPT(run, torch.float64)
    stepper = Optimizer(run, network)
    e, groups = run.decay_per_step, []
    matrices = []
    for _, weight, _ in reference.blocks():
        rms = 1 / math.sqrt(weight.shape[-1])
        for matrix in weight.detach():
            matrices.append(torch.nn.Parameter(matrix.clone()))
            lr = rms * math.sqrt(2 * e)
            groups.append({"params": [matrices[-1]], "lr": 2 * lr, "weight_decay": e / lr})
    adamw = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-12)
    for step in range(6):
        windows = data.windows(torch.arange(4) * 100 + step, run.context + 1)
        network.zero_grad()
        loss(network, windows).backward()
        stacks = [weight.grad for _, weight, _ in network.blocks()]
        for matrix, gradient in zip(matrices, [g for stack in stacks for g in stack], strict=True):  # type: ignore[union-attr]
            matrix.grad = gradient.clone()
        stepper.step()
        adamw.step()
    found = [matrix for _, weight, _ in network.blocks() for matrix in weight.detach()]
    for a, b in zip(found, matrices, strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-12, atol=1e-14)


def test_adam_starts_with_steps_as_long_as_later_ones() -> None:
    """With the warm-up the first step of AdamW is k·η in every entry, that of independent gradients ever after."""
    for warm_up, expected in [(True, math.sqrt(0.1 / 1.9)), (False, 1.0)]:
        run = make_run(optimizer="adam0", warm_up=warm_up)
        network = GPT(run, torch.float64)
        before = [network.up.detach().clone(), network.positions.detach().clone()]
        stepper = Optimizer(run, network)
        gradients(network, 0)
        stepper.step()
        for old, weight, lr in zip(
            before, (network.up, network.positions), (block_settings(run, (1, 8))[0], 3e-3), strict=True
        ):
            torch.testing.assert_close((weight.detach() - old).abs(), torch.full_like(old, expected * lr))
        resumed = Optimizer(run, network)
        resumed.load(stepper.state())
        assert resumed.steps == 1


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
        torch.testing.assert_close(before - u, weight.detach())


def test_the_settings_of_the_arms_follow_from_the_factor() -> None:
    shape = (3, 16, 4)
    lr, decay = block_settings(make_run(), shape)
    assert lr * decay == pytest.approx(0.05)
    assert math.sqrt(lr / (2 * decay)) == pytest.approx(1 / math.sqrt(4))
    assert block_settings(make_run(lr_factor=4.0), shape) == pytest.approx((4 * lr, decay))
    assert block_settings(make_run(optimizer="adam0"), shape) == pytest.approx((lr, 0))
    run = make_run(optimizer="adamh", lr_factor=4.0)
    sphere = Optimizer(run, GPT(run)).spheres[0]
    assert isinstance(sphere, FrobeniusSphere)
    assert sphere.angle == pytest.approx(2 * math.sqrt(0.1 / 1.9 * 2 * 0.05))


def test_the_tracked_singular_value_follows_the_spectral_norm() -> None:
    run = make_run(optimizer="macro-S", decay_per_step=0.005)
    network = GPT(run, torch.float64)
    stepper = Optimizer(run, network)
    start = torch.linalg.matrix_norm(network.up.detach(), 2)
    for step in range(40):
        gradients(network, step)
        stepper.step()
    assert isinstance(stepper.spheres[1], SpectralSphere)
    np.testing.assert_allclose(torch.linalg.matrix_norm(network.up.detach(), 2), start, rtol=0.05)
