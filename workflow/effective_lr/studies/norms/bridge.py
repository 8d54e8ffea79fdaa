"""Batch normalization behind W1: what a penalty does to the direction of the weights of a normalized unit."""

from typing import Any

import torch
from torch import Tensor

import effective_lr.studies.norms.networks as networks
from effective_lr.studies.norms.base import DIVERGENCE_CHECK, Stage, Training, degree, top_share
from effective_lr.studies.norms.data import Task
from effective_lr.studies.norms.settings import Run

NORM_EPS = 1e-12
LATE_SAMPLING = 25  # steps between evaluations in the late part


class BridgeTraining(Training):
    """W1 under batch normalization, its units' norms held at 1 or free; plain SGD, no momentum.

    Only W1 is penalised. The other parameters have a learning rate of their own: a check of W1 is then undisturbed.
    """

    def __init__(self, run: Run, task: Task | None) -> None:
        super().__init__(run, task)
        assert task is not None
        self.stage = Stage(run, task.train_x, task.train_y, list(self.arms))
        self.networks = networks.start(run.p, len(self.arms), run.hidden, run.start_gain, run.seed, NORM_EPS)
        networks.hold(self.networks.w1)
        self.degree = torch.tensor([degree(arm) for arm in self.stage.arms], dtype=torch.float64)
        self.late_start = min(round(run.steps * (1 - run.late_fraction)), run.steps - 1)
        self.sums: dict[str, Tensor] = {}
        self.samples = {"step": 0, "evaluation": 0}
        self.relaxations = torch.zeros(len(self.arms), dtype=torch.float64)  # before the late part

    def advance(self) -> None:
        run, nets, penalties = self.run, self.networks, self.stage.penalties
        late = self.step >= self.late_start
        x, y = self.stage.batch(self.step)
        self.step += 1
        loss, gradients = nets.loss_gradients(x, y, classes=False)
        before = nets.w1.clone()
        with_penalty = gradients[0] + penalties.gradient(nets.w1)
        nets.w1.sub_(with_penalty, alpha=run.lr)
        for parameter, gradient in zip(nets.parameters[1:], gradients[1:], strict=True):
            parameter.sub_(gradient, alpha=run.other_lr)
        penalties.prox(nets.w1, run.lr)
        if run.held:
            networks.hold(nets.w1)
        elif not late:
            self.relaxations += (self.degree + 2) / 2 * self.predicted_angle(before).mean(1)
        else:
            self.add_step(before, gradients[0])
        self.examples += len(x)
        is_last = self.step == run.steps
        if late and (self.step % LATE_SAMPLING == 0 or is_last):
            self.add_evaluation()
        if self.step % DIVERGENCE_CHECK == 0 and not torch.isfinite(loss).any():
            self.diverge()
        elif is_last:
            self.finish()

    def predicted_angle(self, w1: Tensor) -> Tensor:
        """B5: 2·k·η·R_l(w)/r² of each unit (arms, m), where R_l is the penalty with its strength."""
        penalties = self.stage.penalties
        quadratic = 2 * penalties.l2[:, None] * (w1 * penalties.transformed(w1)).sum(0)
        absolute = penalties.l1[:, None] * w1.abs().sum(0)
        return 2 * self.run.lr * (quadratic + absolute) / w1.square().sum(0)

    def add_step(self, before: Tensor, gradient: Tensor) -> None:
        """Sums of what a late step of free weights shows, over steps and units."""
        r2 = before.square().sum(0)
        u, v = before / r2.sqrt(), self.networks.w1 / self.networks.w1.norm(dim=0)
        angle = 2 * torch.atan2((u - v).norm(dim=0), (u + v).norm(dim=0))
        measured = {
            "angle_squared": angle.square(),
            "predicted_angle_squared": self.predicted_angle(before),
            "norm_squared": r2,
            "g_squared": r2 * gradient.square().sum(0),
            "zero_fraction": (before == 0).double().mean(0),
        }
        self.add({name: value.mean(1) for name, value in measured.items()}, "step")

    def add_evaluation(self) -> None:
        """Test and training RMSE with the statistics of all training samples, and the share of the first components."""
        task = self.task
        assert task is not None
        outputs = {
            "train": self.networks.outputs(self.stage.x) - self.stage.y[:, None],
            "test": self.networks.outputs(torch.from_numpy(task.test_x), self.stage.x)
            - torch.from_numpy(task.test_y)[:, None],
        }
        measured = {f"{s}_rmse": error.square().mean(0).sqrt() for s, error in outputs.items()}
        self.add({**measured, "top_share": top_share(self.stage.x, self.networks.w1)[1]}, "evaluation")

    def add(self, measured: dict[str, Tensor], kind: str) -> None:
        for name, value in measured.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value
        self.samples[kind] += 1

    def finish(self) -> None:
        steps = {"angle_squared", "predicted_angle_squared", "norm_squared", "g_squared", "zero_fraction"}
        for name, total in self.sums.items():
            self.note(self.stage.arms, name, total / self.samples["step" if name in steps else "evaluation"])
        if not self.run.held:
            self.note(self.stage.arms, "relaxations", self.relaxations)
        best = min(value for _, _, what, value in self.rows if what == "test_rmse")
        self.rows.append((self.step, "", "best_test_rmse", best))

    def state(self) -> dict[str, Any]:
        return {
            "parameters": self.networks.parameters,
            "sums": self.sums,
            "samples": self.samples,
            "relaxations": self.relaxations,
        }

    def restore(self, state: dict[str, Any]) -> None:
        for parameter, stored in zip(self.networks.parameters, state["parameters"], strict=True):
            parameter.copy_(stored)
        self.sums, self.samples, self.relaxations = state["sums"], state["samples"], state["relaxations"]
