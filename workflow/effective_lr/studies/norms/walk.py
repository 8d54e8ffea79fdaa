"""Random gradients against a penalty."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

import effective_lr.studies.norms.networks as networks
from effective_lr.studies.norms.base import TOP, Training, degree
from effective_lr.studies.norms.data import Task, covariance
from effective_lr.studies.norms.penalties import FORMS, Penalties
from effective_lr.studies.norms.settings import Run

SAMPLING = 10  # steps


class WalkTraining(Training):
    """Random gradients, tangent and of norm 1/‖w‖, against a penalty: B7. Weights (D, arms, walkers), all at norm 1
        first.

    S is exact: diag(d) in its own basis, with the AR(1) eigenvalues d, so that tr P = D for CAR; for l1 the basis is
    that of the inputs. All arms see the same noise.
    """

    def __init__(self, run: Run, task: Task | None) -> None:
        super().__init__(run, task)
        self.d = torch.from_numpy(np.linalg.eigvalsh(covariance(run)))
        inverse = 1 / self.d
        d, inverse = self.d[:, None, None], (inverse * len(inverse) / inverse.sum())[:, None, None]
        forms = {FORMS[arm.penalty][0] for arm in self.arms}
        exact = {"car": lambda w: d * w, "inverse": lambda w: inverse * w}
        self.penalties = Penalties(self.arms, {name: metric for name, metric in exact.items() if name in forms})
        self.degree = torch.tensor([degree(arm) for arm in self.penalties.arms], dtype=torch.float64)
        self.generator = torch.Generator().manual_seed(run.seed)
        self.w = torch.randn(run.inputs, len(self.arms), run.walkers, generator=self.generator, dtype=torch.float64)
        networks.hold(self.w)
        self.late_start = min(round(run.steps * (1 - run.late_fraction)), run.steps - 1)
        self.sums: dict[str, Tensor] = {}
        self.samples = 0

    def advance(self) -> None:
        run, w = self.run, self.w
        self.step += 1
        r2 = w.square().sum(0)
        noise = torch.randn(run.inputs, 1, run.walkers, generator=self.generator, dtype=torch.float64)
        radial = (noise * w).sum(0) / r2
        # The tangent part has the squared norm ‖noise‖² − radial²·r².
        length = (noise.square().sum(0) - radial.square() * r2).sqrt()
        sampled = self.step > self.late_start and (self.step % SAMPLING == 0 or self.step == run.steps)
        before = w.clone() if sampled else w
        gradient = self.penalties.gradient(w)
        gradient += (noise - radial * w) / (length * r2.sqrt())
        w = self.w = torch.sub(w, gradient, alpha=run.lr)
        self.penalties.prox(w, run.lr)
        self.examples += w[0].numel()
        if sampled:
            self.measure(before)
        if self.step == run.steps:
            self.finish()

    def measure(self, before: Tensor) -> None:
        """Sums over walkers and steps. R is that of the arm at strength 1."""
        r2 = before.square().sum(0)
        u, v = before / r2.sqrt(), self.w / self.w.norm(dim=0)
        angle = 2 * torch.atan2((u - v).norm(dim=0), (u + v).norm(dim=0))
        penalties = self.penalties
        is_l1 = penalties.l1[:, None] > 0
        value = torch.where(is_l1, before.abs().sum(0), (before * penalties.transformed(before)).sum(0))
        squares = u.square()
        measured = {
            "squares": squares.mean(2),  # (D, arms)
            "fourths": squares.square().mean((0, 2)),
            "balance": (r2 * value).mean(1) * (2 * self.degree * penalties.strengths) / self.run.lr,
            "angle_squared": angle.square().mean(1),
            "zero_fraction": (before == 0).double().mean((0, 2)),
        }
        for name, sample in measured.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(sample)) + sample
        self.samples += 1

    def finish(self) -> None:
        """`top_share` is E[Σ_top d·u²]/E[u'Su]; thirds are D·E[u_j²] averaged over a third of the components."""
        arms = self.penalties.arms
        mean = {name: total / self.samples for name, total in self.sums.items()}
        squares = mean["squares"]
        energy = self.d[:, None] * squares
        self.note(arms, "top_share", energy[-TOP:].sum(0) / energy.sum(0))
        for j, share in enumerate(energy / energy.sum(0)):
            self.note(arms, f"share_{j}", share)  # of the component with the eigenvalue d[j]
        for name, part in zip(("low", "middle", "high"), squares.tensor_split(3), strict=True):
            self.note(arms, f"third_{name}", len(self.d) * part.mean(0))
        self.note(arms, "kurtosis", mean["fourths"] / squares.mean(0).square())
        for name in ("balance", "angle_squared", "zero_fraction"):
            self.note(arms, name, mean[name])
        slowest = 2 * self.run.lr * self.penalties.l2 * self.d[0]
        self.note(arms, "slowest_times", self.late_start * slowest)

    def state(self) -> dict[str, Any]:
        return {"w": self.w, "sums": self.sums, "samples": self.samples, "noise": self.generator.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        self.w, self.sums, self.samples = state["w"], state["sums"], state["samples"]
        self.generator.set_state(state["noise"])
