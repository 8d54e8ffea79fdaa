"""The exact statements D3 to D6, tried in float64, each beside versions with a condition broken, which must fail.

    check              subject                        value
    larger_step        residual                       D3: largest difference of the two directions
    subsumption        exact, moments not rescaled,   D4: largest difference of the directions of AdamW and of the
                       constant rate                  recursion without a norm, over all matrices of a GPT under `every`
    stuck_gradient     muonh 0.02, sign 0.02, …       D5: |grad| that is left at this η, over the closed form
    step_slope         macro-F                        D5: slope of log |grad| in log η
    horizon_slope      macro-F, muonh                 D6: slope of log mean |grad| in log T, η ∝ T^(-1/2), no noise
    noisy_slope        macro-F, muonh                 D6: of the last tenth's, η ∝ T^(-3/4), 1 − b ∝ T^(-1/2), noise

`holds` says whether the value is on the side of its tolerance that theory predicts, for broken versions the other side.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from effective_lr.studies.manifold import theory, toys
from effective_lr.studies.manifold.networks import GPT, loss
from effective_lr.studies.manifold.optimizers import block_settings, frobenius, normalize
from effective_lr.studies.manifold.settings import Run

STEPS = 30  # of D4: training amplifies rounding, without bound in many steps
VERSIONS = ("exact", "moments not rescaled", "constant rate")


def rows() -> list[dict[str, Any]]:
    """check, subject, seed, value, holds of every check."""
    return [row for seed in toys.SEEDS for check in (larger_step, subsumption, descent, rates) for row in check(seed)]


def row(check: str, subject: str, seed: int, value: float, low: float, high: float) -> dict[str, Any]:
    return {"check": check, "subject": subject, "seed": seed, "value": value, "holds": bool(low <= value <= high)}


def larger_step(seed: int) -> list[dict[str, Any]]:
    """D3: N((1−e)W − hu) = N(W − h/(1−e)·u), for decays and step sizes far from small."""
    generator = torch.Generator().manual_seed(seed)
    weight, u = torch.randn(2, 8, 12, 20, generator=generator, dtype=torch.float64)
    worst = max(
        float((normalize((1 - e) * weight - h * u) - normalize(weight - h / (1 - e) * u)).abs().max())
        for e in (0.001, 0.1, 0.5)
        for h in (0.01, 1.0)
    )
    return [row("larger_step", "residual", seed, worst, 0, 1e-12)]


def small_run(seed: int) -> Run:
    """A GPT in which every block matrix is scale invariant, with no ε to break it; its norms start off equilibrium."""
    return Run(
        corpus="shakespeare",
        vocabulary=11,
        layers=2,
        width=8,
        heads=2,
        context=12,
        rms_norm="every",
        rms_eps=1e-300,
        optimizer="adamw",
        decay_per_step=1 / 120,
        initial_norm=2.0,
        beta1=0.9,
        beta2=0.95,
        optimizer_eps=1e-300,
        momentum=0.9,
        vector_lr=3e-3,
        batch_size=8,
        steps=STEPS,
        probes=1,
        evaluations=1,
        validation_batches=1,
        validation_batch_size=1,
        late_fraction=1.0,
        seed=seed,
    )


def block_gradients(network: GPT, stacks: list[Tensor], step: int) -> list[Tensor]:
    """The gradients of the block stacks at these weights, on the random batch of this step."""
    run = network.run
    generator = torch.Generator().manual_seed(1000 * run.seed + step)
    windows = torch.randint(run.vocabulary, (run.batch_size, run.context + 1), generator=generator)
    parameters = [parameter for _, parameter, _ in network.blocks()]
    with torch.no_grad():
        for parameter, stack in zip(parameters, stacks, strict=True):
            parameter.copy_(stack)
    return list(torch.autograd.grad(loss(network, windows), parameters))


def adamw_directions(run: Run) -> list[Tensor]:
    """N(W) of the block stacks after training by torch.optim.AdamW."""
    network = GPT(run, torch.float64)
    parameters = [parameter for _, parameter, _ in network.blocks()]
    groups = []
    for parameter in parameters:
        lr, decay = block_settings(run, parameter.shape)
        groups.append({"params": [parameter], "lr": lr, "weight_decay": decay})
    adam = torch.optim.AdamW(groups, betas=(run.beta1, run.beta2), eps=run.optimizer_eps)
    for step in range(run.steps):
        gradients = block_gradients(network, [parameter.detach().clone() for parameter in parameters], step)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        adam.step()
    return [normalize(parameter.detach()) for parameter in parameters]


def recursion_directions(run: Run, version: str) -> list[Tensor]:
    """The same directions by D4's recursion on v = N(w) and r = ‖w‖, of which only v enters the network.

    v ← N(v − η/((1−e)r)·u), q = (1−e)·‖v − η/((1−e)r)·u‖, r ← qr, with moments m ← β1·q'm + (1−β1)g and
    s ← β2·q'²s + (1−β2)g², g the gradient at v and q' the q of the step before, 1 at the start.
    """
    network = GPT(run, torch.float64)
    stacks = [parameter.detach().clone() for _, parameter, _ in network.blocks()]
    norms = [frobenius(stack) for stack in stacks]
    stacks = [normalize(stack) for stack in stacks]
    start = [norm.clone() for norm in norms]
    factors = [torch.ones_like(norm) for norm in norms]
    first = [torch.zeros_like(stack) for stack in stacks]
    second = [torch.zeros_like(stack) for stack in stacks]
    for step in range(run.steps):
        gradients = block_gradients(network, stacks, step)
        for n, gradient in enumerate(gradients):
            lr, decay = block_settings(run, stacks[n].shape)
            e = lr * decay
            rescaling = torch.ones_like(factors[n]) if version == "moments not rescaled" else factors[n]
            first[n] = run.beta1 * rescaling * first[n] + (1 - run.beta1) * gradient
            second[n] = run.beta2 * rescaling**2 * second[n] + (1 - run.beta2) * gradient**2
            u = first[n] / (1 - run.beta1 ** (step + 1)) / (second[n] / (1 - run.beta2 ** (step + 1))).sqrt()
            radius = start[n] if version == "constant rate" else norms[n]
            moved = stacks[n] - lr / ((1 - e) * radius) * u
            factors[n] = (1 - e) * frobenius(moved)
            norms[n] = factors[n] * norms[n]
            stacks[n] = normalize(moved)
    return stacks


def subsumption(seed: int) -> list[dict[str, Any]]:
    """D4: with decay, but without a norm. Each version's largest difference from AdamW's directions."""
    run = small_run(seed)
    expected = adamw_directions(run)
    found = []
    for version in VERSIONS:
        stacks = recursion_directions(run, version)
        worst = max(float((a - b).abs().max()) for a, b in zip(stacks, expected, strict=True))
        low, high = (0, 1e-10) if version == "exact" else (1e-3, np.inf)
        found.append(row("subsumption", version, seed, worst, low, high))
    return found


def descent(seed: int) -> list[dict[str, Any]]:
    """D5: without projection a constant direction gets stuck where the closed form says, at every η."""
    found = []
    for name, closed_form in [("muonh", "msign"), ("sign", "sign")]:
        expected = theory.stuck_gradient(toys.Toy(seed).loss, closed_form)
        for lr in toys.RATES:
            value = toys.floor(seed, name, lr) / expected
            found.append(row("stuck_gradient", f"{name} {lr}", seed, value, 0.99, 1.01))
    left = [toys.floor(seed, "macro-F", lr) for lr in toys.RATES]
    return [*found, row("step_slope", "macro-F", seed, toys.slope(toys.RATES, left), 0.9, 1.1)]


def rates(seed: int) -> list[dict[str, Any]]:
    """D6: how the gradient falls with the number of steps, with the projection and without."""
    found = []
    for name, exact, noisy in [("macro-F", (-0.6, -0.4), (-np.inf, -0.2)), ("muonh", (-0.05, np.inf), (-0.05, np.inf))]:
        means = [toys.mean_gradient(seed, name, steps) for steps in toys.HORIZONS]
        late = [toys.late_noisy_gradient(seed, name, steps) for steps in toys.HORIZONS]
        found.append(row("horizon_slope", name, seed, toys.slope(toys.HORIZONS, means), *exact))
        found.append(row("noisy_slope", name, seed, toys.slope(toys.HORIZONS, late), *noisy))
    return found
