"""The closed forms against the optimizers of PyTorch on random tangent gradients, and against each other.

The simulation knows nothing of the formulas: each row of w is a scale group, its gradient a random tangent vector
of norm GRAD/‖w‖, and torch.optim takes the steps with weight_decay = 2·l2.
"""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

import plain_pytorch
from effective_lr.studies.normalization import theory

DIM, GROUPS, GRAD = 1000, 4, 2.0
MOMENTUM = 0.9  # and beta1: PyTorch's default, as for all other settings of the adaptive optimizers
LAG = 50  # steps; long against the memory 1/(1 − MOMENTUM) of the optimizers
SGD_TYPE = ("sgd", "momentum", "nesterov")

# The formulas hold to leading order in the angle per step, here at most 0.03. These (lr, l2) let every norm
# relax in 1250 steps or fewer, to a value between 1.2 and 2.3: far enough from 1 for a wrong exponent to show.
SETTINGS = {
    "sgd": (0.05, 2e-3),
    "momentum": (0.005, 2e-3),
    "nesterov": (0.005, 2e-3),
    "adam": (1e-3, 8e-3),
    "rmsprop": (1e-3, 8e-3),
    "adamw": (2e-3, 0.125),
}


def random_walk(name: str, lr: float, l2: float, initial_norm: float, steps: int) -> Iterator[Tensor]:
    """The weights (GROUPS, DIM) after each step; the same tensor every time."""
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(GROUPS, DIM, generator=generator, dtype=torch.float64)
    w *= initial_norm / w.norm(dim=1, keepdim=True)
    optimizer = plain_pytorch.optimizer(name, [{"params": [w], "lr": lr, "weight_decay": 2 * l2}], MOMENTUM)
    for _ in range(steps):
        noise = torch.randn(w.shape, generator=generator, dtype=torch.float64)
        norm = w.norm(dim=1, keepdim=True)
        tangent = noise - (noise * w).sum(1, keepdim=True) / norm**2 * w
        w.grad = tangent / tangent.norm(dim=1, keepdim=True) * GRAD / norm
        optimizer.step()
        yield w


@pytest.mark.parametrize("name", theory.NORM_EXPONENT)
def test_equilibrium_of_random_gradients(name: str) -> None:
    """2 %: neglected orders, the noise of PyTorch's squared gradients and the start make up to 1 %."""
    lr, l2 = SETTINGS[name]
    point = (name, lr, l2, GRAD, DIM, MOMENTUM)
    start = 0.9 * float(theory.equilibrium_norm(*point))  # off by more than the tolerance
    settling, measured = 5000, 3000  # settling: at least four relaxation times
    norms, angles, snapshots = [], [], []
    previous = torch.full((GROUPS, DIM), torch.nan)
    for step, w in enumerate(random_walk(name, lr, l2, start, settling + measured)):
        if step < settling:
            continue
        norms.append(w.norm(dim=1))
        direction = w / w.norm(dim=1, keepdim=True)
        if step > settling:
            angles.append(2 * torch.asin((direction - previous).norm(dim=1) / 2))
        previous = direction
        if step % LAG == 0:
            snapshots.append(direction)

    # The direction diffuses: −2·log⟨cos⟩ grows by (effective lr · gradient)² per step, after an offset from
    # the memory of the optimizer that the difference of two lags removes.
    visited = torch.stack(snapshots)
    one, two = (torch.log((visited[lag:] * visited[:-lag]).sum(2).mean()).item() for lag in (1, 2))
    effective_lr = (2 * (one - two) / LAG) ** 0.5 / (GRAD if name in SGD_TYPE else DIM**0.5)

    assert torch.stack(norms).mean() == pytest.approx(theory.equilibrium_norm(*point), rel=0.02)
    assert torch.stack(angles).square().mean().sqrt() == pytest.approx(theory.equilibrium_angle(*point), rel=0.02)
    assert effective_lr == pytest.approx(theory.equilibrium_effective_lr(*point), rel=0.02)


def test_growth_without_penalty() -> None:
    """2 %: the leading order neglects η²G²/‖w‖⁴, 0.01 at the start."""
    lr, initial_norm = 0.05, 1.0
    norms = torch.stack([w.norm(dim=1).mean() for w in random_walk("sgd", lr, 0.0, initial_norm, 2000)])
    steps = np.array([50, 200, 800, 2000])
    assert norms[steps - 1].numpy() == pytest.approx(theory.growth_norm(lr, GRAD, steps, initial_norm), rel=0.02)
    assert norms[-1] > 2 * initial_norm


@pytest.mark.parametrize("name", SGD_TYPE)
def test_approach_to_equilibrium(name: str) -> None:
    """5 %: an error of 0.2 % in the equilibrium norm, 0.8 % in its fourth power, moves the slope by 1 %."""
    lr, l2 = SETTINGS[name]
    start = 1.5 * float(theory.equilibrium_norm(name, lr, l2, GRAD, DIM, MOMENTUM))
    walk = random_walk(name, lr, l2, start, 3000)
    fourth_powers = np.array([w.norm(dim=1).pow(4).mean().item() for w in walk])
    excess = fourth_powers / theory.equilibrium_norm(name, lr, l2, GRAD, DIM, MOMENTUM) ** 4 - 1

    window = np.arange(100, 2600)  # from the end of the optimizer's first steps to twice the relaxation time
    rate = -np.polyfit(window, np.log(excess[window]), 1)[0]
    assert rate == pytest.approx(theory.relaxation_rate(name, lr, l2, MOMENTUM), rel=0.05)

    steps = theory.steps_to_equilibrium(name, lr, l2, GRAD, start, 0.5, MOMENTUM)
    assert np.argmax(excess <= 0.5) == pytest.approx(steps, rel=0.05)


CURVATURE = torch.linspace(1, 2, 20, dtype=torch.float64)


def projected_losses(name: str, lr: float, l2: float, steps: int) -> Tensor:
    """Descent on the scale-invariant loss Σ CURVATURE·w²/‖w‖², from 1 to 2, with ‖w‖ set to 1 after every step."""
    w = torch.ones_like(CURVATURE) / len(CURVATURE) ** 0.5
    optimizer = plain_pytorch.optimizer(name, [{"params": [w], "lr": lr, "weight_decay": 2 * l2}], MOMENTUM)
    losses = []
    for _ in range(steps):
        loss = CURVATURE @ w**2
        w.grad = 2 * (CURVATURE - loss) * w
        optimizer.step()
        w /= w.norm()
        losses.append(CURVATURE @ w**2)
    return torch.stack(losses)


@pytest.mark.parametrize("name", SGD_TYPE)
def test_projected_training_is_sgd_at_another_learning_rate_up_to_the_critical_penalty(name: str) -> None:
    """SGD exactly, momentum to 2 % of the progress: its memory, 50 steps at most, is short against the 3000. Beyond it
    SGD climbs all the way to the maximum."""
    lr, start = 2e-5, CURVATURE.mean()
    for share in (0.5, 0.8):
        l2 = share * float(theory.critical_l2(name, lr, MOMENTUM))
        equivalent_lr = float(theory.projected_effective_lr(name, lr, l2, MOMENTUM))
        progress = start - projected_losses(name, lr, l2, 3000)[-1]
        expected = start - projected_losses("sgd", equivalent_lr, 0.0, 3000)[-1]
        assert progress.item() == pytest.approx(expected.item(), rel=1e-6 if name == "sgd" else 0.02)
    critical = float(theory.critical_l2(name, 1e-3, MOMENTUM))
    below, beyond = (projected_losses(name, 1e-3, share * critical, 2000)[-500:] for share in (0.95, 1.05))
    assert below.max() < 1.001 and beyond.min() > (1.99 if name == "sgd" else 1.1)
    assert theory.projected_effective_lr(name, 1e-3, 1.05 * critical) < 0


positive = st.floats(1e-3, 1e3)
momenta = st.floats(0, 0.99)
optimizers = st.sampled_from(tuple(theory.NORM_EXPONENT))


@given(lr=positive, l2=positive, grad=positive, dim=st.integers(1, 10**6), mu=momenta, beta1=momenta)
def test_table(lr: float, l2: float, grad: float, dim: int, mu: float, beta1: float) -> None:
    """The closed forms as they are printed, where the code composes them."""
    adam_lr = (4 * lr**2 * l2 / (dim**0.5 * grad)) ** (1 / 3)
    nesterov_spread = (1 - mu) * ((1 + mu) ** 2 + mu**4 / (1 - mu**2))
    printed = {
        "sgd": (2 * (lr * l2) ** 0.5 / grad, (4 * lr * l2) ** 0.5),
        "momentum": (2 * (lr * l2 / (1 - mu)) ** 0.5 / grad, (4 * lr * l2 / (1 + mu)) ** 0.5),
        "nesterov": (2 * (lr * l2 / (1 - mu)) ** 0.5 / grad, (4 * lr * l2 * nesterov_spread) ** 0.5),
        "adam": (adam_lr, ((1 - beta1) / (1 + beta1) * dim) ** 0.5 * adam_lr),
        "rmsprop": (adam_lr, dim**0.5 * adam_lr),
        "adamw": (2 * (lr * l2 / dim) ** 0.5, (4 * lr * l2 * (1 - beta1) / (1 + beta1)) ** 0.5),
    }
    for name, (effective_lr, angle) in printed.items():
        assert theory.equilibrium_effective_lr(name, lr, l2, grad, dim, mu) == pytest.approx(effective_lr)
        assert theory.equilibrium_angle(name, lr, l2, grad, dim, mu, beta1) == pytest.approx(angle)


@given(name=optimizers, lr=positive, l2=positive, grad=positive, mu=momenta, a=st.floats(0.01, 100))
def test_diagonals_and_the_exact_symmetries(name: str, lr: float, l2: float, grad: float, mu: float, a: float) -> None:
    """The effective learning rate is constant along diagonals. And w → aw changes no trained function, with a²η, λ/a²
    for SGD, aη, λ/a² for Adam and aη, λ/a for AdamW."""
    here = (name, lr, l2, grad, DIM, mu)
    on_diagonal = (name, a * lr, l2 * a ** (-1 / theory.diagonal_slope(name)), grad, DIM, mu)
    assert theory.diagonal_invariant(*on_diagonal[:3]) == pytest.approx(theory.diagonal_invariant(*here[:3]))
    scaled_lr = a**2 * lr if name in SGD_TYPE else a * lr
    scaled = (name, scaled_lr, l2 / a if name == "adamw" else l2 / a**2, grad, DIM, mu)
    assert theory.equilibrium_norm(*scaled) == pytest.approx(a * theory.equilibrium_norm(*here))
    effective_lr, angle = theory.equilibrium_effective_lr(*here), theory.equilibrium_angle(*here)
    for there in (on_diagonal, scaled):
        assert theory.equilibrium_effective_lr(*there) == pytest.approx(effective_lr)
    assert theory.equilibrium_angle(*scaled) == pytest.approx(angle)
    assert theory.effective_lr(name, lr, a, mu, projected=True) == pytest.approx(theory.effective_lr(name, lr, 1.0, mu))


@pytest.mark.parametrize("name", theory.NORM_EXPONENT)
def test_no_penalty_is_the_limit(name: str) -> None:
    assert theory.equilibrium_norm(name, 1e-3, 0.0, GRAD, DIM) == np.inf
    assert theory.equilibrium_effective_lr(name, 1e-3, 0.0, GRAD, DIM) == 0
    assert theory.equilibrium_angle(name, 1e-3, 0.0, GRAD, DIM) == 0
    if name in SGD_TYPE:
        there = theory.equilibrium_norm(name, 0.1, 1e-3, GRAD, DIM)
        assert theory.steps_to_equilibrium(name, 0.1, 1e-3, GRAD, there, 0.1) == 0
        assert theory.steps_to_equilibrium(name, 0.1, 0.0, GRAD, there, 0.1) == np.inf


MODEL = {  # η, λ whose equilibrium is reached within the first half of the steps, and what the balance may be
    "sgd": (0.02, 0.05, 0.99, 1.01),
    "momentum": (0.002, 0.05, 0.99, 1.01),
    "nesterov": (0.002, 0.05, 0.99, 1.01),
    "adam": (0.003, 0.04, 0.97, 1.02),
    "rmsprop": (0.003, 0.04, 0.9, 1.01),  # whose ŝ moves within the relaxation
    "adamw": (0.004, 0.05, 0.97, 1.02),
}


def random_gradients(optimizer: str, correlations: NDArray[np.float64], steps: int = 12_000) -> NDArray[np.float64]:
    """⟨w, w⟩, ⟨w, √ŝ w⟩, ⟨g, Pg⟩ and ⟨g, Pm⟩, means over late steps and eight replicas, (4, correlations).

    Scale invariant weights in 20 dimensions. The gradient is a vector of unequal coordinates whose successive values
    have these correlations, projected to the tangent, over ‖w‖.
    """
    rng, (lr, l2, *_), dim = np.random.default_rng(1), MODEL[optimizer], 20
    square_decay = {"rmsprop": 0.99, "adam": 0.999, "adamw": 0.999}.get(optimizer)
    scale, rho = np.exp(0.5 * rng.normal(size=dim)), correlations[:, None, None]
    shape = (len(correlations), 8, dim)
    w, noise, m, s, sums = rng.normal(size=shape) / dim**0.5, np.zeros(shape), np.zeros(shape), np.zeros(shape), 0.0
    for t in range(1, steps + 1):
        noise = rho * noise + np.sqrt(1 - rho**2) * rng.normal(size=shape) * scale
        square = (w * w).sum(-1, keepdims=True)
        g = (noise - (noise * w).sum(-1, keepdims=True) * w / square) * 0.5 / (dim * square) ** 0.5
        h = g + (2 * l2 * w if optimizer != "adamw" else 0)
        s = s + (1 - square_decay) * (h * h - s) if square_decay else s
        root = (s / (1 - square_decay**t)) ** 0.5 if square_decay else np.ones(shape)
        remembered = m / (1 - 0.9 ** max(t - 1, 1)) if square_decay else m
        if t > steps // 2:
            sums = sums + np.stack([w * w, root * w * w, g * g / root, g * remembered / root]).sum(-1).mean(-1)
        if optimizer in ("momentum", "nesterov"):
            m = 0.9 * m + h
            update = m if optimizer == "momentum" else h + 0.9 * m
        elif optimizer in ("adam", "adamw"):
            m = 0.9 * m + 0.1 * h
            update = m / (1 - 0.9**t) / root
        else:
            update = h / root
        w = (w * (1 - 2 * lr * l2) if optimizer == "adamw" else w) - lr * update
    return np.asarray(sums / (steps - steps // 2))


@pytest.mark.parametrize("optimizer", MODEL)
def test_the_balance_holds_whatever_the_correlation_of_gradients(optimizer: str) -> None:
    lr, l2, low, high = MODEL[optimizer]
    norm, rooted, gradient, memory = random_gradients(optimizer, np.array([-0.3, 0.0, 0.3]))
    shrinking = 4 * l2 * (rooted if optimizer == "adamw" else norm)
    ratio = shrinking / theory.equilibrium_growth(optimizer, lr, gradient, memory)
    assert (ratio > low).all() and (ratio < high).all(), ratio
    if optimizer in ("sgd", "rmsprop"):
        assert theory.equilibrium_growth(optimizer, lr, 1.0, 0.7) == lr
        return
    memoryless = shrinking / theory.equilibrium_growth(optimizer, lr, gradient, 0.0)
    assert memoryless[0] < 0.75 and memoryless[2] > 1.4 and abs(memoryless[1] - 1) < 0.03, memoryless
    if optimizer == "nesterov":  # with the memory term of the heavy ball it misses
        missed = shrinking / theory.equilibrium_growth(optimizer, lr, gradient, memory / 0.9)
        assert missed[0] > 1.04 and missed[2] < 0.97, missed


def test_a_unit_of_rmsprop_that_loses_its_gradient_vanishes_unless_the_penalty_outweighed_it() -> None:
    """In float32, at θ = 0.2 of the widest layer: its norm over η√d/2; and the one that is left turns by π."""
    lr, l2, single, rng = 0.009, 0.0086, np.float32, np.random.default_rng(0)
    for gradient, norm in [(1e-2, 0.0), (1e-5, 1.0)]:
        w, s = single(rng.normal(size=144) / 12), np.zeros(144, dtype=single)
        for t in range(3000):
            g = single(gradient * rng.normal(size=144) / 12 / np.linalg.norm(w)) if t < 500 else single(0)
            h, before = g + single(2 * l2) * w, w
            s = single(0.99) * s + single(0.01) * h * h
            w = w - single(lr) * h / (np.sqrt(s) + single(1e-8))
        assert np.linalg.norm(w) / (lr * 12 / 2) == pytest.approx(norm, abs=1e-3)
    assert (w @ before) / (w @ w) == pytest.approx(-1, abs=1e-3)


def test_what_is_unknown_or_does_not_exist_is_refused() -> None:
    for function in (theory.effective_lr, theory.critical_l2):
        with pytest.raises(ValueError, match=r"'adagrad'.*sgd, momentum, nesterov, adam, rmsprop, adamw"):
            function("adagrad", 0.1, 0.5)
    with pytest.raises(ValueError, match=r"momentum is 1\.0.*less than 1"):
        theory.effective_lr("momentum", 0.1, 1.0, momentum=1.0)
    for name in ("adam", "rmsprop", "adamw"):
        with pytest.raises(ValueError, match=f"With {name}, no critical l2 of projected weights"):
            theory.projected_effective_lr(name, 0.1, 0.1)
        with pytest.raises(ValueError, match=f"With {name}, the approach to equilibrium is no exponential"):
            theory.relaxation_rate(name, 0.1, 0.1)
