"""What the tests of norms share: the measurements of a run of a few steps."""

import torch
from torch import Tensor

from effective_lr.studies.norms.settings import Run
from effective_lr.studies.norms.training import load, train

CPU = torch.device("cpu")


def measured(run: Run, tensors: dict[str, Tensor] | None = None) -> dict[tuple[str, str], float]:
    """What a run measures, by arm and quantity; that of the run itself has no arm."""
    return {(arm, quantity): value for _, arm, quantity, value in train(run, load(tensors or {}, run, CPU)).rows}
