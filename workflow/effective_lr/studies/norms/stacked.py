"""Stacked ReLU networks, all of them on the same samples, start and batches."""

from typing import Any

import torch
from torch import Tensor

import effective_lr.studies.norms.networks as networks
from effective_lr.studies.norms.base import DIVERGENCE_CHECK, Stage, Training, top_share
from effective_lr.studies.norms.data import Task
from effective_lr.studies.norms.settings import Run


class NetworkTraining(Training):
    """Stacked ReLU networks: all arms, then adaptive l1, which needs the l2 fit."""

    def __init__(self, run: Run, task: Task | None) -> None:
        super().__init__(run, task)
        assert task is not None
        self.adaptive = [arm for arm in self.arms if arm.penalty == "adaptive"]
        self.plain = [arm for arm in self.arms if arm.penalty != "adaptive"]
        self.steps = run.steps * (1 + bool(self.adaptive))
        self.input_weights: Tensor | None = None
        self.begin()

    def begin(self) -> None:
        """The stage that the next step belongs to, from its start."""
        task, run = self.task, self.run
        assert task is not None
        is_second = min(self.step, self.steps - 1) >= run.steps
        arms = self.adaptive if is_second else self.plain
        self.stage = Stage(run, task.train_x, task.train_y, arms, self.input_weights if is_second else None)
        self.networks = networks.start(run.p, len(arms), run.hidden, run.start_gain, run.seed)
        self.velocities = [torch.zeros_like(parameter) for parameter in self.networks.parameters]

    def advance(self) -> None:
        run = self.run
        place = self.step % run.steps
        if place == 0 and self.step:
            self.begin()
        self.step += 1
        dropped = place >= run.drop_at * run.steps
        lr = run.lr * (run.lr_drop if dropped else 1.0)
        x, y = self.stage.batch(place)
        loss, gradients = self.networks.loss_gradients(x, y, classes=False)
        gradients[0] += self.stage.penalties.gradient(self.networks.w1)
        gradients[2] += 2 * self.stage.penalties.strengths[:, None] * self.networks.w2
        if run.clip:
            networks.clip(gradients, run.clip)
        for parameter, velocity, gradient in zip(self.networks.parameters, self.velocities, gradients, strict=True):
            velocity.mul_(run.momentum).add_(gradient)  # heavy ball as in torch.optim.SGD
            parameter.sub_(velocity, alpha=lr)
        self.stage.penalties.prox(self.networks.w1, lr)
        self.examples += len(x)
        if place % DIVERGENCE_CHECK == 0 and not torch.isfinite(loss).any():
            self.diverge()
        elif place == run.steps - 1:
            self.finish()

    def finish(self) -> None:
        """All that is measured of the networks of a stage."""
        task, stage = self.task, self.stage
        assert task is not None
        splits = {
            "train": (task.train_x, task.train_y),
            "test": (task.test_x, task.test_y),
            "validation": (task.validation_x, task.validation_y),
        }
        for name, (x, y) in splits.items():
            error = self.networks.outputs(torch.from_numpy(x)) - torch.from_numpy(y)[:, None]
            self.note(stage.arms, f"{name}_rmse", error.square().mean(0).sqrt())
        self.measure()
        if self.adaptive and self.input_weights is None:
            self.input_weights = 1 / (self.chosen_l2().norm(dim=1) + 0.01)
        if self.step == self.steps:
            self.note_best()

    def measure(self) -> None:
        """Sizes and sparsity of the networks, and how they use the inputs."""
        stage, w1 = self.stage, self.networks.w1
        active = (w1 != 0).any(2)  # (p, arms)
        self.note(stage.arms, "nonzeros", (w1 != 0).sum((0, 2)))
        self.note(stage.arms, "active_inputs", active.sum(0))
        self.note(stage.arms, "w1_squared", w1.square().sum((0, 2)))
        self.note(stage.arms, "w2_squared", self.networks.w2.square().sum(1))
        variance, share = top_share(stage.x, w1)
        self.note(stage.arms, "input_variance", variance)
        used = [i for i, value in enumerate(variance) if value > 0]  # weights that are all 0 have no direction
        self.note([stage.arms[i] for i in used], "top_share", share[used])
        if self.run.truth == "sparse":
            assert self.task is not None and self.task.truth is not None
            support = torch.from_numpy((self.task.truth != 0).any(1))[:, None]
            found = (active & support).sum(0)
            self.note(stage.arms, "precision", found / active.sum(0).clamp_min(1))
            self.note(stage.arms, "recall", found / support.sum())

    def chosen_l2(self) -> Tensor:
        """W1 (p, m) of the l2 arm that validation chooses."""
        values = {layer: v for _, layer, what, v in self.rows if what == "validation_rmse"}
        place = min(
            (i for i, arm in enumerate(self.stage.arms) if arm.penalty == "l2"),
            key=lambda i: values[self.stage.arms[i].name],
        )
        return self.networks.w1[:, place]

    def state(self) -> dict[str, Any]:
        return {
            "parameters": self.networks.parameters,
            "velocities": self.velocities,
            "input_weights": self.input_weights,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.input_weights = state["input_weights"]
        # At the border of two stages the next step begins anew; what is restored here is then not used.
        if self.step % self.run.steps:
            self.begin()
            for parameter, stored in zip(self.networks.parameters, state["parameters"], strict=True):
                parameter.copy_(stored)
            self.velocities = state["velocities"]
