"""The exact statements of the theory and of the measurement, tried in float64 on small networks and random images.

A row is (check, subject, seed, value, holds): the value is a relative residual, `holds` says whether it should be
small. What should not hold shows that the check can fail.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy.optimize import curve_fit
from torch import Tensor

from effective_lr.studies.stability import theory
from effective_lr.studies.stability.curvature import Loss, Point, edge_balance, gradient, sharpness_gradient, top_pair
from effective_lr.studies.stability.networks import Network, losses
from effective_lr.studies.stability.settings import Run
from effective_lr.studies.stability.theory import EdgeMap

SEEDS = (0, 1, 2)
EXACT = 1e-10  # of the eigensolver, where a statement is exact
NETWORKS: dict[str, dict[str, Any]] = {
    "MLP": {},
    "CNN": {"network": "cnn"},
    "cross-entropy": {"loss": "cross-entropy"},
    "BN": {"normalization": "batch"},
    "WN": {"normalization": "weight"},
}


def small_run(seed: int, **changes: Any) -> Run:
    settings: dict[str, Any] = {
        "dataset": "fashion-mnist",
        "resolution": 14,
        "train_size": 30,
        "test_size": 10,
        "network": "mlp",
        "width": 5,
        "second_width": 4,
        "loss": "mse",
        "lr": 0.05,
        "l2": 0.01,
        "steps": 100,
        "probes": 10,
        "ntk_images": 0,
        "seed": seed,
    }
    return Run(**{**settings, **changes})


def small_problem(run: Run) -> tuple[Network, Loss, Tensor]:
    """A network, its loss on random images, and parameters some steps away from the start, where all norms differ."""
    network = Network(run)
    generator = torch.Generator().manual_seed(run.seed)
    images = torch.randn(run.train_size, 1, run.resolution, run.resolution, generator=generator, dtype=torch.float64)
    targets = torch.eye(10, dtype=torch.float64)[torch.randint(10, (run.train_size,), generator=generator)]

    def loss(w: Tensor) -> Tensor:
        return losses(network.outputs(w, images), targets, run.loss)

    w = network.start()
    for _ in range(20):
        w = w - run.lr * gradient(loss, w)[1]
    return network, loss, w


def top(loss: Loss, w: Tensor) -> tuple[float, Tensor]:
    """The sharpness and its eigenvector, exact up to rounding."""
    return top_pair(Point(loss, w).hessian_times, torch.ones_like(w), EXACT)


def relative(found: Any, expected: Any) -> float:
    """The distance of two vectors or numbers, relative to the second."""
    difference = torch.as_tensor(found, dtype=torch.float64) - torch.as_tensor(expected, dtype=torch.float64)
    return float(difference.norm() / torch.as_tensor(expected, dtype=torch.float64).norm())


def hessian_product(run: Run) -> float:
    """Hv by two backward passes against the central difference of gradients."""
    _, loss, w = small_problem(run)
    v = torch.randn(len(w), generator=torch.Generator().manual_seed(run.seed + 1), dtype=torch.float64)
    distance = 1e-5 / v.norm()
    difference = (gradient(loss, w + distance * v)[1] - gradient(loss, w - distance * v)[1]) / (2 * distance)
    return relative(Point(loss, w).hessian_times(v), difference)


def third_derivative(run: Run) -> float:
    """∇S by the second difference of gradients against autograd of u'Hu with u held fixed."""
    network, loss, w = small_problem(run)
    _, u = top(loss, w)
    norm = float((w * network.penalized).norm())
    return relative(sharpness_gradient(loss, w, gradient(loss, w)[1], u, norm), exact_sharpness_gradient(loss, w, u))


def exact_sharpness_gradient(loss: Loss, w: Tensor, u: Tensor) -> Tensor:
    """∇(u'Hu) with u held fixed, by autograd."""
    w = w.detach().requires_grad_()
    (slope,) = torch.autograd.grad(loss(w), w, create_graph=True)
    (product,) = torch.autograd.grad(slope, w, u, create_graph=True)
    (change,) = torch.autograd.grad(product @ u, w)
    return change


def drift_of_flow(run: Run, with_decay: bool = True) -> float:
    """dS/dt along −∇F by a central difference of S against α0 − 2λAS, or against α0 alone; relative to both terms."""
    network, loss, w = small_problem(run)
    sharpness, u = top(loss, w)
    slope, weights = gradient(loss, w)[1], w * network.penalized
    change = exact_sharpness_gradient(loss, w, u)
    alpha0, degree = -float(change @ slope), float(change @ weights) / sharpness
    predicted = theory.drift(alpha0, degree, sharpness, run.l2 if with_decay else 0.0)
    distance = 1e-4
    ahead, behind = (top(loss, w - sign * distance * (slope + 2 * run.l2 * weights))[0] for sign in (1, -1))
    return abs((ahead - behind) / (2 * distance) - float(predicted)) / (
        abs(alpha0) + abs(2 * run.l2 * degree * sharpness)
    )


def invariant_degree(run: Run) -> float:
    """|A + 2|u_w|²|."""
    network, loss, w = small_problem(run)
    sharpness, u = top(loss, w)
    degree = float(exact_sharpness_gradient(loss, w, u) @ (w * network.penalized)) / sharpness
    return abs(degree - float(theory.invariant_degree(float((u * network.penalized).square().sum()))))


def degree_of_homogeneous(seed: int, hidden: int, activation: str) -> float:
    """|A − 2(p − 1)| of the Gauss–Newton matrix of a network of p linear layers without biases, from S(s·w)/S(w)."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(6, 8), *[(6, 6)] * (hidden - 1), (3, 6)]
    sizes = [units * inputs for units, inputs in shapes]
    w = torch.cat([torch.randn(units * inputs, generator=generator).double() / inputs**0.5 for units, inputs in shapes])
    images = torch.randn(20, 8, generator=generator).double()
    apply = {"relu": torch.relu, "tanh": torch.tanh}[activation]

    def outputs(w: Tensor) -> Tensor:
        x = images
        for number, (piece, shape) in enumerate(zip(w.split(sizes), shapes, strict=True)):
            x = (apply(x) if number else x) @ piece.view(shape).T
        return x

    def sharpness(w: Tensor) -> float:
        jacobian = torch.func.jacrev(outputs)(w).flatten(0, 1)
        return float(torch.linalg.eigvalsh(jacobian @ jacobian.T)[-1])

    scale = 1.01
    degree = np.log(sharpness(scale * w) / sharpness(w)) / np.log(scale)
    return float(abs(degree - theory.homogeneous_degree(hidden + 1)))


def map_oscillation(seed: int) -> tuple[float, float]:
    """Rate and period of a small oscillation of y, fitted to the map, against the closed forms."""
    rng = np.random.default_rng(seed)
    edge = EdgeMap(lr=0.05, force=rng.uniform(0.2, 0.4), restoring=rng.uniform(0.15, 0.25), beta=rng.uniform(5, 20))
    steps = round(3 * edge.period)
    y = edge.trajectory(float(theory.squared_displacement(edge.force, edge.beta)) ** 0.5, 1e-4, steps)[:, 1]
    k = np.arange(steps + 1)

    def wave(k: Any, rate: float, period: float, size: float, phase: float) -> Any:
        return size * np.exp(rate * k) * np.cos(2 * np.pi * k / period + phase)

    (rate, period, *_), _ = curve_fit(wave, k, y / y[0], p0=[edge.rate, edge.period, 1.0, 0.0])
    return relative(rate, edge.rate), relative(period, edge.period)


def map_end(seed: int) -> float:
    """The resting sharpness of a map with κ = 2λA and λ above λ_c, against α0/(2λA)."""
    rng = np.random.default_rng(seed)
    lr, l2, degree, alpha0 = 0.05, 0.02, rng.uniform(1, 2), rng.uniform(0.5, 1.0)
    star = 2 / lr - 2 * l2
    restoring = 2 * l2 * degree
    edge = EdgeMap(lr=lr, force=alpha0 - restoring * star, restoring=restoring, beta=10.0)
    y = edge.trajectory(1e-3, 0.0, round(20 / (lr * restoring)))[-1, 1]
    return relative(star + y, theory.resting_sharpness(alpha0, degree, l2))


def map_without_decay(seed: int) -> float:
    """Without a restoring force the oscillation grows: its fitted rate is not the damped one of κ = 2λA."""
    rng = np.random.default_rng(seed)
    damped = EdgeMap(lr=0.05, force=0.3, restoring=0.2, beta=rng.uniform(5, 20))
    free = damped._replace(restoring=0.0)
    y = free.trajectory(float(theory.squared_displacement(free.force, free.beta)) ** 0.5, 1e-4, round(3 * free.period))[
        :, 1
    ]
    peaks = [k for k in range(1, len(y) - 1) if y[k - 1] < y[k] > y[k + 1]]
    rate = np.log(y[peaks[-1]] / y[peaks[0]]) / (peaks[-1] - peaks[0])
    return relative(rate, damped.rate)


SHAPES = np.array([[[1.0, 0.6], [0.6, 0.3]], [[0.3, -0.4], [-0.4, 1.0]], [[0.0, 0.5], [0.5, 0.0]]])
SPREAD = np.array([[0.46, -0.30], [-0.30, 0.21]])  # covariance of the oscillation that the forces of the model ask for


def two_directions(seed: int) -> dict[str, float]:
    """|pressure/force − 1| in a model with two directions at the edge, by what the pressure is summed over.

    L = ½x'Mx − f·z + ½κ|z|² with M = 2/η + Σz_j·SHAPES_j, and stable directions beside it: the forces f sharpen both
    directions and turn them, and κ is so small that the oscillation neither grows nor dies. Means over the last half.
    """
    lr, steps, restoring = 0.02, 12_000, 0.012
    force = np.einsum("jab,ab->j", SHAPES, SPREAD) / 2
    shapes, pull, rest = (torch.from_numpy(some) for some in (SHAPES, force, np.linspace(1, 10, 7)))

    def loss(w: Tensor) -> Tensor:
        x, z, others = w.split([2, 3, 7])
        curved = 2 / lr * x @ x + torch.einsum("jab,j,a,b->", shapes, z, x, x)
        return curved / 2 - pull @ z + restoring / 2 * z @ z + (rest * others**2).sum() / 2

    x, z = 0.1 * np.random.default_rng(seed).standard_normal(2), np.zeros(3)
    near, totals = torch.ones(12, dtype=torch.float64), dict[str, float]()
    for step in range(steps):
        slope = 2 / lr * x + np.einsum("jab,j,b->a", SHAPES, z, x)
        push = force - restoring * z - np.einsum("jab,a,b->j", SHAPES, x, x) / 2
        ahead = x - lr * slope, z + lr * push
        if step >= steps / 2 and step % 40 == 0:
            before, after = (torch.from_numpy(np.concatenate([*pair, np.zeros(7)])) for pair in ((x, z), ahead))
            measured, near = edge_balance(loss, before, after, torch.ones_like(before), lr, 0.0, near)
            totals = {quantity: totals.get(quantity, 0.0) + value for quantity, value in measured.items()}
        x, z = ahead
    kinds = {"all directions": "", "products left out": "_diagonal", "top direction": "_top"}
    return {kind: relative(totals[f"edge_pressure{end}"], totals["edge_force"]) for kind, end in kinds.items()}


def trials(seed: int) -> Iterator[tuple[str, str, float, bool]]:
    """(check, subject, value, whether it should be small) at one seed."""
    rate, period = map_oscillation(seed)
    yield "map", "rate", rate, True
    yield "map", "period", period, True
    yield "map", "end", map_end(seed), True
    yield "map", "rate without decay", map_without_decay(seed), False
    for kind, value in two_directions(seed).items():
        yield "pressure", kind, value, kind == "all directions"
    for name, settings in NETWORKS.items():
        run = small_run(seed, **settings)
        yield "hessian_product", name, hessian_product(run), True
        yield "third_derivative", name, third_derivative(run), True
        yield "drift", name, drift_of_flow(run), True
    yield "drift", "MLP, decay left out", drift_of_flow(small_run(seed, l2=0.1), with_decay=False), False
    for name, normalization in [("BN", "batch"), ("WN", "weight"), ("MLP", "none")]:
        run = small_run(seed, normalization=normalization)
        yield "invariant_degree", name, invariant_degree(run), normalization != "none"
    for hidden in (1, 2):
        yield "degree", f"ReLU, {hidden} hidden", degree_of_homogeneous(seed, hidden, "relu"), True
    yield "degree", "tanh, 2 hidden", degree_of_homogeneous(seed, 2, "tanh"), False


def rows() -> list[dict[str, Any]]:
    """check, subject, seed, value, holds of every check at every seed."""
    return [
        {"check": check, "subject": subject, "seed": seed, "value": value, "holds": holds}
        for seed in SEEDS
        for check, subject, value, holds in trials(seed)
    ]
