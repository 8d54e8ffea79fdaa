"""How a run is trained: all of its arms at once, on one CPU thread.

The kinds of run: closed forms of a linear model; stacked networks (stacked.py); batch normalization behind W1
(bridge.py); random gradients (walk.py); the penalties as they are reported, tuned by cross-validation (tuned.py); a
Monte Carlo of the theorems (theorem.py).
"""

import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

import effective_lr.studies.norms.linear as linear  # not from the package, whose words decide no result
from effective_lr.studies.norms.base import Data, Training
from effective_lr.studies.norms.bridge import BridgeTraining
from effective_lr.studies.norms.data import Task, design, simulate, split
from effective_lr.studies.norms.settings import Run
from effective_lr.studies.norms.stacked import NetworkTraining
from effective_lr.studies.norms.theorem import TheoremTraining
from effective_lr.studies.norms.tuned import TunedTraining
from effective_lr.studies.norms.walk import WalkTraining


def load(tensors: dict[str, Tensor], run: Run, device: torch.device) -> Data:
    """Only tuned networks go to another device than the CPU: all others are far too small for one."""
    torch.set_num_threads(1)
    return Data({name: tensor.cpu() for name, tensor in tensors.items()}, device)


class LinearTraining(Training):
    """One step, which is all: closed forms."""

    def advance(self) -> None:
        assert self.task is not None
        self.step += 1
        self.examples += len(self.task.train_y)
        self.rows += [(self.step, *row) for row in linear.rows(self.run, self.task)]
        self.note_best()


KINDS: dict[str, type[Training]] = {
    "linear": LinearTraining,
    "network": NetworkTraining,
    "bridge": BridgeTraining,
    "walk": WalkTraining,
    "tuned": TunedTraining,
    "theorem": TheoremTraining,
}


@torch.inference_mode()
def train(
    run: Run,
    data: Data,
    saved: bytes | None = None,
    after_step: Callable[[Training], None] = lambda training: None,
) -> Training:
    """Train a run to its end, or from where `saved` left it; `after_step` may look at it, save it, or raise."""
    training = KINDS[run.kind](run, task_of(run, data))
    if saved is not None:
        training.load(saved)
    begun = time.perf_counter() - training.seconds
    while training.step < training.steps and not training.diverged:
        training.advance()
        training.seconds = time.perf_counter() - begun
        after_step(training)
    return training


def task_of(run: Run, data: Data) -> Task | None:
    """The samples of a run; walks and theorems draw their own."""
    if run.kind in ("walk", "theorem"):
        return None
    if run.kind == "tuned":
        task = design(run) if run.data == "simulated" else split(run, data.tensors)
        return replace(task, device=data.device)
    return simulate(run)
