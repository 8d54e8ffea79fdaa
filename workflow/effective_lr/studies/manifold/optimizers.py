"""The optimizers. Each step below acts on a stack (n, d_out, d_in): n matrices of one shape, each on its own sphere.

    adamw    W ← (1−e)W − ηu                              torch.optim.AdamW, (η, wd) per stack by decoupled
    adam0    the same without decay
    adamh    W ← R·N(W − θR·N(P(u)))                      P the tangent projection at W, N(X) = X/‖X‖_F
    macro-F  W ← R·N(W − θR·N(P(msign(P(M)))))            ‖W‖_F = R
    macro-S  the same with the projection of ‖W‖₂ = R; step length θ‖W‖_F, W scaled back to ‖W‖₂ = R
    muonh    W ← R·N(W − θR·N(msign(M)))                  no projection: a control

u is Adam's bias-corrected direction, M ← bM + (1−b)G a momentum. Embedding and head are on a Frobenius sphere in
every arm; under macro and muonh row normalization takes the place of msign there. Positions and gain are trained by
Adam. AdamH and MuonH are named by Wen et al. (2606.16899); the formulas of macro are our reconstruction of An et al.
(2605.04418), whose algorithm is not known to us.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from effective_lr.studies.manifold.bijection import decoupled, matched_angle
from effective_lr.studies.manifold.networks import GPT, starting_rms
from effective_lr.studies.manifold.settings import Run

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of Jordan et al., Muon (2024)
NEWTON_SCHULZ_STEPS = 5
ROW_FLOOR = 1e-3  # of the largest row norm: a symbol absent from recent batches is not turned by a stale direction
POWER_ITERATIONS, POWER_ITERATIONS_AT_START = 2, 20


def frobenius(stack: Tensor) -> Tensor:
    """‖W‖_F of each matrix, (n, 1, 1)."""
    return torch.linalg.vector_norm(stack, dim=(-2, -1), keepdim=True)


def normalize(stack: Tensor) -> Tensor:
    """N(X) = X/‖X‖_F, and 0 for X = 0."""
    return stack / frobenius(stack).clamp(min=torch.finfo(stack.dtype).tiny)


def project(x: Tensor, weight: Tensor) -> Tensor:
    """X without its part along W: onto the tangent space of the Frobenius sphere at W."""
    along = (x * weight).sum((-2, -1), keepdim=True) / weight.square().sum((-2, -1), keepdim=True)
    return x - along * weight


def project_spectral(x: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """X without its part along pq', p (n, d_out, 1) and q (n, d_in, 1) the top singular vectors of W: onto the
    tangent space of the spectral sphere, where the top singular value is single."""
    return x - (left.mT @ x @ right) * (left @ right.mT)


def msign(stack: Tensor) -> Tensor:
    """About UV' of the thin SVD X = USV', by Newton–Schulz: singular values are near 1, not 1."""
    a, b, c = NEWTON_SCHULZ
    is_tall = stack.shape[-2] > stack.shape[-1]
    x = normalize(stack.mT if is_tall else stack)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


def normalize_rows(stack: Tensor) -> Tensor:
    """Each row over its norm, which is floored at a fraction of the largest in its matrix."""
    norms = torch.linalg.vector_norm(stack, dim=-1, keepdim=True)
    floor = norms.amax(-2, keepdim=True) * ROW_FLOOR
    return stack / norms.clamp(min=floor.clamp(min=torch.finfo(stack.dtype).tiny))


def turn(weight: Tensor, direction: Tensor, radius: Tensor, angle: float) -> None:
    """W ← R·N(W − θR·N(direction)), in place: by arctan θ exactly where the direction is tangent."""
    weight.copy_(radius * normalize(weight - angle * radius * normalize(direction)))


def top_singular_vectors(weight: Tensor, right: Tensor, iterations: int) -> tuple[Tensor, Tensor, Tensor]:
    """(p, q, σ) of each matrix by power iterations from `right` (n, d_in, 1); σ (n, 1, 1) is a lower estimate of
    ‖W‖₂."""
    for _ in range(iterations):
        left = normalize(weight @ right)
        right = normalize(weight.mT @ left)
    left = weight @ right
    size = frobenius(left)
    return left / size, right, size


class AdamDirection:
    """u = m̂/(√ŝ + ε)."""

    def __init__(self, weight: Tensor, run: Run) -> None:
        self.run = run
        self.state = {"first": torch.zeros_like(weight), "second": torch.zeros_like(weight)}
        self.steps = 0

    def __call__(self, gradient: Tensor) -> Tensor:
        beta1, beta2 = self.run.beta1, self.run.beta2
        self.steps += 1
        first = self.state["first"].lerp_(gradient, 1 - beta1)
        second = self.state["second"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = second.sqrt().div_(math.sqrt(1 - beta2**self.steps)).add_(self.run.optimizer_eps)
        return first / (1 - beta1**self.steps) / root


class Momentum:
    """M ← bM + (1−b)G."""

    def __init__(self, weight: Tensor, run: Run) -> None:
        self.run = run
        self.state = {"first": torch.zeros_like(weight)}
        self.steps = 0

    def __call__(self, gradient: Tensor) -> Tensor:
        self.steps += 1
        return self.state["first"].lerp_(gradient, 1 - self.run.momentum)


class FrobeniusSphere:
    """A stack whose matrices are held at the norms that they start with, and turned by θ in each step."""

    def __init__(self, weight: nn.Parameter, run: Run, angle: float, is_block: bool) -> None:
        self.weight, self.run, self.angle = weight, run, angle
        self.radius = frobenius(weight.detach())
        is_adam = run.optimizer in ("adamw", "adam0", "adamh")
        self.direction = AdamDirection(weight.detach(), run) if is_adam else Momentum(weight.detach(), run)
        self.matrix_sign = None if is_adam else msign if is_block else normalize_rows

    def step(self) -> None:
        gradient = self.weight.grad
        assert gradient is not None
        weight = self.weight.detach()
        direction = self.direction(gradient)
        if self.run.optimizer == "muonh":
            assert self.matrix_sign is not None
            direction = self.matrix_sign(direction)
        else:
            direction = project(direction, weight)
            if self.matrix_sign is not None:
                direction = project(self.matrix_sign(direction), weight)
        turn(weight, direction, self.radius, self.angle)

    def state(self) -> dict[str, Any]:
        return {**self.direction.state, "steps": self.direction.steps, "radius": self.radius}

    def load(self, state: dict[str, Any]) -> None:
        self.direction.steps, self.radius = state["steps"], state["radius"]
        self.direction.state = {name: state[name] for name in self.direction.state}


class SpectralSphere:
    """A stack whose matrices are held at the spectral norms that they start with; their Frobenius norms are free."""

    def __init__(self, weight: nn.Parameter, run: Run, angle: float) -> None:
        self.weight, self.angle = weight, angle
        self.momentum = Momentum(weight.detach(), run)
        # Any start that is not orthogonal to q will do; a row of W is not.
        right = weight.detach()[:, :1].mT.contiguous()
        self.left, self.right, self.radius = top_singular_vectors(weight.detach(), right, POWER_ITERATIONS_AT_START)

    def step(self) -> None:
        assert self.weight.grad is not None
        weight = self.weight.detach()
        momentum = project_spectral(self.momentum(self.weight.grad), self.left, self.right)
        direction = project_spectral(msign(momentum), self.left, self.right)
        turned = weight - self.angle * frobenius(weight) * normalize(direction)
        self.left, self.right, size = top_singular_vectors(turned, self.right, POWER_ITERATIONS)
        weight.copy_(turned * (self.radius / size))

    def state(self) -> dict[str, Any]:
        vectors = {"left": self.left, "right": self.right, "radius": self.radius}
        return {**self.momentum.state, "steps": self.momentum.steps, **vectors}

    def load(self, state: dict[str, Any]) -> None:
        self.momentum.steps, self.momentum.state = state["steps"], {"first": state["first"]}
        self.left, self.right, self.radius = state["left"], state["right"], state["radius"]


class Optimizer:
    """All parameters of a network: block matrices by the run's optimizer, embedding and head on spheres, the rest by
    Adam."""

    def __init__(self, run: Run, network: GPT) -> None:
        angle = float(matched_angle(run.decay_per_step, run.beta1)) * math.sqrt(run.lr_factor)
        self.run, self.network, self.steps = run, network, 0
        self.spheres: list[FrobeniusSphere | SpectralSphere] = []
        groups: list[dict[str, Any]] = [
            {"params": [network.positions, network.gain], "lr": run.vector_lr, "weight_decay": 0.0}
        ]
        for _, weight, _ in network.blocks():
            if run.optimizer == "macro-S":
                self.spheres.append(SpectralSphere(weight, run, angle))
            elif run.is_constrained:
                self.spheres.append(FrobeniusSphere(weight, run, angle, is_block=True))
            else:
                lr, decay = block_settings(run, weight.shape)
                groups.append({"params": [weight], "lr": lr, "weight_decay": decay})
        self.spheres += [FrobeniusSphere(weight, run, angle, is_block=False) for _, weight, _ in network.ends()]
        # AdamW without decay is Adam.
        self.adam = torch.optim.AdamW(groups, betas=(run.beta1, run.beta2), eps=run.optimizer_eps)
        self.rates = [group["lr"] for group in groups]

    def step(self) -> None:
        self.steps += 1
        if self.run.warm_up:
            power = self.run.beta1**self.steps
            for group, lr in zip(self.adam.param_groups, self.rates, strict=True):
                group["lr"] = lr * math.sqrt((1 - power) / (1 + power))
        self.adam.step()
        with torch.no_grad():
            for sphere in self.spheres:
                sphere.step()

    def balance(self, weight: Tensor) -> dict[str, Tensor]:
        """The terms (n,) of the balance that AdamW's equilibrium is, by matrix of a stack, before a step with the
        gradient g: ⟨w,√ŝ w⟩, ⟨w,g⟩, ⟨g,Pg⟩ and ⟨d,g⟩. ŝ is that of the step, with g in it, P = 1/(√ŝ + ε), and
        d = P·m̂ has the first moment before it. Empty before the first step."""
        state, gradient = self.adam.state.get(weight), weight.grad
        if not state or gradient is None:
            return {}
        beta1, beta2 = self.run.beta1, self.run.beta2
        second = state["exp_avg_sq"].mul(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = second.div_(1 - beta2 ** (self.steps + 1)).sqrt_().add_(self.run.optimizer_eps)
        step = gradient / root
        pairs = {
            "weighted_square": (weight.detach() * root, weight.detach()),
            "radial": (weight.detach(), gradient),
            "noise": (gradient, step),
            "memory": (state["exp_avg"] / (1 - beta1**self.steps), step),
        }
        return {name: (a * b).sum((-2, -1), dtype=torch.float64) for name, (a, b) in pairs.items()}

    def zero_grad(self) -> None:
        self.network.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any]:
        return {
            "adam": self.adam.state_dict(),
            "spheres": [sphere.state() for sphere in self.spheres],
            "steps": self.steps,
        }

    def load(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        self.adam.load_state_dict(state["adam"])
        for sphere, saved in zip(self.spheres, state["spheres"], strict=True):
            sphere.load(saved)


def block_settings(run: Run, shape: torch.Size | tuple[int, ...]) -> tuple[float, float]:
    """AdamW's (η, wd = 2λ) of the matrices of a stack: those with equilibrium at R and e = decay_per_step, then η
    times f."""
    angle = matched_angle(run.decay_per_step, run.beta1)
    lr, decay = decoupled(starting_rms(shape), angle, run.beta1)
    return float(lr) * run.lr_factor, float(decay) if run.optimizer == "adamw" else 0.0
