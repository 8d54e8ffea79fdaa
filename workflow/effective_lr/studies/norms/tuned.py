"""The reported penalties, tuned as it is reported: every arm on every fold, then the chosen ones on all training rows.

All arms see the same folds, start and batches. A fold's arms train in stacks whose weights and moments of Adam stay
near a core's cache; a GPU takes all of them at once. A step of a run is one epoch of one stack.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from effective_lr.studies.norms.base import Training
from effective_lr.studies.norms.data import Scaler, Task, folds, selected
from effective_lr.studies.norms.settings import Arm, Run
from effective_lr.studies.norms.stack import LAYERS, Stack, form

STACKED_WEIGHTS = 220_000  # of a stack on a CPU
SMALL = 1e-3  # below which a weight counts as zero: under Adam none is exactly so


class TunedTraining(Training):
    """Stacks of the folds, in the order of the arms, and one stack of the chosen arms."""

    def __init__(self, run: Run, task: Task | None) -> None:
        super().__init__(run, task)
        assert task is not None
        self.folds = folds(run, task.train_y)
        # Arms of one form stand together, so that a stack need not compute what none of its arms has.
        arms = sorted(self.arms, key=lambda arm: [bool(part) for part in form(arm)] + [form(arm).layers])
        weights = task.train_x.shape[1] if run.classes == 1 else run.p
        size = (weights + run.second) * run.hidden + run.second * run.classes
        width = len(arms) if task.device.type == "cuda" else max(STACKED_WEIGHTS // size, 1)
        parts = [arms[i : i + width] for i in range(0, len(arms), width)]
        self.stages = [(fold, part) for fold in range(run.folds) for part in parts]
        self.steps = run.steps * (len(self.stages) + 1)
        self.losses = {arm.name: 0.0 for arm in self.arms}  # held-out loss, summed over the samples of all folds
        self.lasted = {arm.name: 0.0 for arm in self.arms}  # epochs to the lowest held-out loss, summed over folds
        self.begin()

    def begin(self) -> None:
        """The stage that the next step belongs to, from its start."""
        task, run = self.task, self.run
        assert task is not None
        number = min(self.step, self.steps - 1) // run.steps
        self.number, self.is_last = number, number == len(self.stages)
        rows, outside = np.arange(len(task.train_y)), None
        if self.is_last:
            self.chosen = self.choose()
            self.stage_arms = list(self.chosen.values())
        else:
            fold, self.stage_arms = self.stages[number]
            rows, outside = self.folds[fold]
        x, y = task.train_x[rows], task.train_y[rows]
        genes = selected(run, x, y, task)
        scale = Scaler(x[:, genes])

        def inputs(values: np.ndarray) -> Tensor:
            return scale(values[:, genes]).float().to(task.device)

        self.inputs = inputs
        self.x, self.y = inputs(x), self.target(y)
        self.outside = None if outside is None else (inputs(task.train_x[outside]), self.target(task.train_y[outside]))
        sizes = (self.x.shape[1], run.hidden, run.second, run.classes)
        self.stack = Stack(self.stage_arms, sizes, run.seed, run.lr, task.device)
        self.lowest = torch.full((len(self.stage_arms),), math.inf, dtype=torch.float64)
        self.best_epoch = torch.zeros(len(self.stage_arms), dtype=torch.float64)
        self.covariances = self.stack.covariances(self.x, run.delta)
        last = [round(self.lasted[arm.name] / run.folds) if run.patience else run.steps for arm in self.stage_arms]
        self.ends = [max(epochs, 1) for epochs in last]  # of the chosen arms

    def target(self, y: np.ndarray) -> Tensor:
        assert self.task is not None
        values = torch.from_numpy(y).to(self.task.device)
        return values.float() if self.run.classes == 1 else values.long()

    def advance(self) -> None:
        run = self.run
        epoch = self.step % run.steps
        if epoch == 0 and self.step:
            self.begin()
        order = np.random.default_rng([run.seed, 20, len(self.x), epoch]).permutation(len(self.x))
        order_ = torch.from_numpy(order).to(self.x.device)
        x, y = self.x[order_], self.y[order_]
        if len(self.covariances) > 1 and epoch:
            self.covariances[1:] = self.stack.covariances(self.x, run.delta)[1:]
        for start in range(0, len(x), run.batch_size):
            batch = slice(start, start + run.batch_size)
            self.stack.step(x[batch], y[batch], self.covariances, run.delta)
        self.step += 1
        self.examples += len(x) * len(self.stage_arms)
        if self.is_last:
            self.measure([i for i, end in enumerate(self.ends) if end == epoch + 1])
            if self.step == self.steps:
                self.finish()
        elif run.patience or epoch + 1 == run.steps:
            self.hold_out(epoch + 1)

    def hold_out(self, epoch: int) -> None:
        """The held-out loss of this epoch; the lowest so far counts where there is patience, else the last."""
        run = self.run
        assert self.outside is not None
        loss = self.loss(*self.outside).cpu()
        is_better = (loss < self.lowest) & (
            epoch - self.best_epoch <= max(run.patience, run.steps * (not run.patience))
        )
        self.lowest = torch.where(is_better, loss, self.lowest)
        self.best_epoch = torch.where(is_better, float(epoch), self.best_epoch)
        is_over = bool(run.patience) and bool((epoch - self.best_epoch >= run.patience).all())
        if epoch == run.steps or is_over:
            for arm, value, lasted in zip(self.stage_arms, self.lowest.tolist(), self.best_epoch.tolist(), strict=True):
                self.losses[arm.name] += value * len(self.outside[1])
                self.lasted[arm.name] += lasted
            self.step += run.steps - epoch

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean squared error or mean log-loss of each arm (arms,); infinite where a network has diverged."""
        out = self.stack.outputs(x).double()
        if self.run.classes == 1:
            found = (out[:, :, 0] - y).square().mean(1)
        else:
            found = -out.log_softmax(2)[:, torch.arange(len(y)), y].mean(1)
        return torch.where(torch.isfinite(found), found, math.inf)

    def choose(self) -> dict[str, Arm]:
        """For each penalty the arm of the lowest held-out loss; `ridge+` chooses among the arms of ridge, too."""
        penalties = dict.fromkeys(arm.penalty for arm in self.arms)
        return {
            name: min(
                (arm for arm in self.arms if arm.penalty in (name, name.removesuffix("+"))),
                key=lambda arm: self.losses[arm.name],
            )
            for name in penalties
        }

    def measure(self, places: list[int]) -> None:
        """All that is measured of the chosen arms of these places, which have lasted as long as they should."""
        task, run = self.task, self.run
        assert task is not None
        if not places:
            return
        names = list(self.chosen)
        test_x, test_y = self.inputs(task.test_x), self.target(task.test_y)
        measured = {f"train_{self.name}": self.loss(self.x, self.y), f"test_{self.name}": self.loss(test_x, test_y)}
        out = self.stack.outputs(test_x).double()
        if run.classes == 1:
            error = (out[:, :, 0] - test_y).abs()
            measured["test_mae"] = error.mean(1)
            measured["test_r2"] = 1 - measured["test_mse"] / test_y.double().var(correction=0)
            if task.fresh_x is not None and task.fresh_y is not None:
                fresh = self.stack.outputs(self.inputs(task.fresh_x)).double()[:, :, 0]
                truth = torch.from_numpy(task.fresh_y).to(task.device)
                measured["risk"] = (fresh - truth).square().mean(1) + run.noise**2
        else:
            right = (out.argmax(2) == test_y).double()
            labels = test_y.unique()
            measured["balanced_accuracy"] = torch.stack([right[:, test_y == k].mean(1) for k in labels]).mean(0)
        first = self.stack.of_arm(0)
        measured["nonzeros"] = (first.abs() >= SMALL).sum((1, 2))
        measured["exact_zeros"] = (first == 0).sum((1, 2))
        measured["w1_squared"] = self.stack.squares(0)
        measured["w_squared"] = torch.stack([self.stack.squares(layer) for layer in range(LAYERS)]).sum(0)
        for i in places:
            arm = self.stage_arms[i]
            mine = [other for other in self.arms if other.penalty in (names[i], names[i].removesuffix("+"))]
            grids = [{a.strength for a in mine}, {a.second for a in mine if a.second is not None}]
            ends = [
                value in (min(grid), max(grid))
                for value, grid in zip((arm.strength, arm.second), grids, strict=True)
                if len(grid) > 1
            ]
            found = {
                **{name: float(values[i]) for name, values in measured.items()},
                "strength": arm.strength,
                **({} if arm.second is None else {"second": arm.second}),
                "cv_loss": self.losses[arm.name] / len(task.train_y),
                "at_end": float(any(ends)),
                "epochs": float(self.ends[i]),
            }
            self.rows += [(self.step, names[i], name, value) for name, value in found.items()]

    @property
    def name(self) -> str:
        return "mse" if self.run.classes == 1 else "log_loss"

    def finish(self) -> None:
        """The held-out loss of every arm, and the result of the penalty that has the lowest."""
        assert self.task is not None
        count = len(self.task.train_y)
        self.rows += [(self.step, arm.name, "cv_loss", self.losses[arm.name] / count) for arm in self.arms]
        best = min(self.chosen, key=lambda name: self.losses[self.chosen[name].name])
        value = next(v for _, layer, what, v in self.rows if (layer, what) == (best, f"test_{self.name}"))
        is_mse = self.run.classes == 1
        self.rows.append(
            (self.step, "", "best_test_rmse" if is_mse else "best_test_log_loss", value**0.5 if is_mse else value)
        )

    def state(self) -> dict[str, Any]:
        return {
            "parameters": self.stack.parameters,
            "optimizer": self.stack.optimizer.state_dict(),
            "losses": self.losses,
            "lasted": self.lasted,
            "held_out": [self.lowest, self.best_epoch],
            "covariances": self.covariances[1:],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.losses, self.lasted = state["losses"], state["lasted"]
        # At the border of two stages the next step begins anew; what is restored here is then not used.
        if self.step % self.run.steps:
            self.begin()
            for parameter, stored in zip(self.stack.parameters, state["parameters"], strict=True):
                parameter.copy_(stored)
            self.stack.optimizer.load_state_dict(state["optimizer"])
            self.lowest, self.best_epoch = state["held_out"]
