"""What every run of the study has: its rows, its checkpoints, and for stacked networks the samples and batches of a
stage."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from effective_lr.studies.norms.data import CPU, Task
from effective_lr.studies.norms.penalties import Penalties, metrics
from effective_lr.studies.norms.settings import Arm, Run, parse_arms
from effective_lr.studies.norms.theory import DEGREE

Row = tuple[int, str, str, float]  # step, arm ("": the run), quantity, value
TOP = 5  # principal components in `top_share`
DIVERGENCE_CHECK = 50  # steps


@dataclass(frozen=True, eq=False)
class Data:
    """The prepared tensors that the runs of a shard share; none where data are simulated."""

    tensors: dict[str, Tensor]
    device: torch.device = CPU


class Training:
    """A run under way. Subclasses say what a step is, and which tensors a checkpoint holds."""

    def __init__(self, run: Run, task: Task | None) -> None:
        self.run, self.task = run, task
        self.arms = parse_arms(run.arms)
        self.step = 0
        self.steps = run.steps
        self.examples = 0
        self.seconds = 0.0
        self.diverged = False
        self.rows: list[Row] = []

    _PROGRESS = ("step", "examples", "seconds", "diverged", "rows")

    def advance(self) -> None:
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""

    @property
    def weights(self) -> dict[str, Tensor]:
        """All that is trained: the tensors of the state, a list of them one by one."""
        lists = {name: value if isinstance(value, list) else [value] for name, value in self.state().items()}
        return {
            f"{name}{k}": one for name, ones in lists.items() for k, one in enumerate(ones) if isinstance(one, Tensor)
        }

    def save(self) -> bytes:
        """All that a later process needs to go on as if nothing had happened."""
        file = io.BytesIO()
        torch.save({"state": self.state(), **{name: getattr(self, name) for name in self._PROGRESS}}, file)
        return file.getvalue()

    def load(self, saved: bytes) -> None:
        stored = torch.load(io.BytesIO(saved), weights_only=True)
        for name in self._PROGRESS:
            setattr(self, name, stored[name])
        self.restore(stored["state"])

    def note(self, arms: list[Arm], quantity: str, values: Tensor) -> None:
        """A row for every arm."""
        self.rows += [(self.step, arm.name, quantity, float(v)) for arm, v in zip(arms, values, strict=True)]

    def note_best(self) -> None:
        """The test RMSE of the arm that validation chooses, of all penalties."""
        found = {
            what: {arm: v for _, arm, name, v in self.rows if name == what} for what in ("validation_rmse", "test_rmse")
        }
        best = min(found["validation_rmse"], key=lambda arm: found["validation_rmse"][arm])
        self.rows.append((self.step, "", "best_test_rmse", found["test_rmse"][best]))

    def diverge(self) -> None:
        self.diverged = True
        self.rows.append((self.step, "", "diverged", 1.0))


class Stage:
    """One stacked training: its samples, its arms, and the batches that all of them see."""

    def __init__(
        self, run: Run, x: np.ndarray, y: np.ndarray, arms: list[Arm], input_weights: Tensor | None = None
    ) -> None:
        self.x, self.y = torch.from_numpy(x), torch.from_numpy(y)
        self.penalties = Penalties(arms, metrics(self.x, run.shrinkage, arms), input_weights)
        self.arms = self.penalties.arms
        self.batch_size = min(run.batch_size, len(x))
        generator = torch.Generator().manual_seed(run.seed + 1_000_003)  # apart from the stream of the weights
        per_epoch = len(x) // self.batch_size
        epochs = (
            [
                torch.randperm(len(x), generator=generator)[: per_epoch * self.batch_size].view(per_epoch, -1)
                for _ in range(-(-run.steps // per_epoch))
            ]
            if self.batch_size < len(x)
            else []
        )
        self.batches = torch.cat(epochs) if epochs else None

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of step 0, 1, ...; all samples, in order, where the batch is all of them."""
        if self.batches is None:
            return self.x, self.y
        return self.x[self.batches[step]], self.y[self.batches[step]]


def top_share(x: Tensor, w1: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_u Var(w_u'x) of each arm over the samples x, and the share of it in their first principal components."""
    centred = (x - x.mean(0)) / len(x) ** 0.5
    variance = (centred @ w1.flatten(1)).square().sum(0).view(w1.shape[1:]).sum(1)
    _, deviations, components = torch.linalg.svd(centred, full_matrices=False)
    parts = deviations[:TOP, None] * (components[:TOP] @ w1.flatten(1))
    return variance, parts.square().sum(0).view(w1.shape[1:]).sum(1) / variance


def degree(arm: Arm) -> int:
    """k of the arm's penalty. Penalties of mixed degree have none; 2 stands for them, and no prediction rests on it."""
    return DEGREE.get(arm.penalty, 2)
