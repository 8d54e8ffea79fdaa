"""Gradient descent with noise of variance 1 on x²/2, and the mean of x² over the last half."""

import io
import time
from collections.abc import Callable

import torch
from torch import Tensor

from effective_lr.studies.quadratic.settings import Run


class Training:
    """A run under way."""

    def __init__(self, run: Run) -> None:
        self.run, self.steps = run, run.steps
        self.step, self.seconds, self.diverged = 0, 0.0, False
        self.rows: list[tuple[int, str, str, float]] = []
        self.x, self.late_sum = torch.zeros(1, dtype=torch.float64), 0.0

    @property
    def examples(self) -> int:
        return self.step

    @property
    def weights(self) -> dict[str, Tensor]:
        return {"x": self.x}

    def save(self) -> bytes:
        file = io.BytesIO()
        torch.save([self.step, self.seconds, self.rows, self.x, self.late_sum], file)
        return file.getvalue()

    def load(self, saved: bytes) -> None:
        self.step, self.seconds, self.rows, self.x, self.late_sum = torch.load(io.BytesIO(saved))


def load(tensors: dict[str, Tensor], run: Run, device: torch.device) -> None:
    torch.set_num_threads(1)


def train(
    run: Run,
    shared: None,
    saved: bytes | None = None,
    after_step: Callable[[Training], None] = lambda training: None,
) -> Training:
    training = Training(run)
    if saved is not None:
        training.load(saved)
    start = time.perf_counter() - training.seconds
    generator = torch.Generator().manual_seed(run.seed)
    noise = torch.randn(run.steps, generator=generator, dtype=torch.float64)
    for step in range(training.step, run.steps):
        training.x = training.x - run.lr * (training.x + noise[step])
        if step >= run.steps // 2:
            training.late_sum += float(training.x) ** 2
        training.step = step + 1
        if training.step == run.steps:
            training.rows.append((run.steps, "", "late_square", training.late_sum / (run.steps - run.steps // 2)))
        training.seconds = time.perf_counter() - start
        after_step(training)
    return training
