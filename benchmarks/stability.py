"""What the probes of the curvature cost (a maintainer's tool).

    PYTHONPATH=workflow python benchmarks/stability.py --output results/benchmark-stability.json

On synthetic images, one thread, median over rounds that take turns: seconds per 1,000 steps of every network at the
size of the laptop scale, without probes and with one every `--every` steps; Hessian-vector products of a probe, and
what one costs in gradients.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effective_lr.studies.stability.curvature import Point, gradient, top_pair
from effective_lr.studies.stability.settings import Run
from effective_lr.studies.stability.training import Training, load

NETWORKS: dict[str, dict[str, Any]] = {
    "MLP": {"lr": 0.06},
    "CNN": {"network": "cnn", "width": 6, "second_width": 12, "train_size": 200, "lr": 0.1},
    "BN": {"normalization": "batch", "ntk_images": 0, "lr": 0.05},
    "WN": {"normalization": "weight", "ntk_images": 0, "lr": 0.03},
    "cross-entropy": {"loss": "cross-entropy", "lr": 0.15},
}


def laptop_run(**changes: Any) -> Run:
    settings: dict[str, Any] = {
        "dataset": "fashion-mnist",
        "resolution": 14,
        "train_size": 300,
        "test_size": 1000,
        "network": "mlp",
        "width": 32,
        "second_width": 32,
        "loss": "mse",
        "l2": 0.004,
        "steps": 1000,
        "probes": 1,
        "ntk_images": 64,
        "seed": 0,
    }
    return Run(**{**settings, **changes})


def synthetic(run: Run) -> dict[str, Tensor]:
    """Noise in the form of prepared data: speed does not depend on what images show."""
    generator = torch.Generator().manual_seed(0)
    tensors: dict[str, Tensor] = {}
    for split, size in [("train", run.train_size), ("test", run.test_size)]:
        tensors[f"{split}_images"] = 0.3 * torch.randn(size, 1, run.resolution, run.resolution, generator=generator)
        tensors[f"{split}_labels"] = torch.randint(10, (size,), generator=generator)
    return tensors


def seconds(action: Callable[[], Any], repeats: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        action()
    return (time.perf_counter() - start) / repeats


class Loop:
    """A training whose steps and probes are made one by one."""

    def __init__(self, run: Run) -> None:
        self.training = Training(run, load(synthetic(run), run, torch.device("cpu")))
        self.before, self.after = self.training.w, self.training.w

    def step(self) -> None:
        """A step without a probe: the training never comes to the one step that has one."""
        self.training.step = 0
        self.before = self.training.w
        self.training.advance()
        self.after = self.training.w

    def probe(self) -> None:
        """As in the late part of training, where the test error is measured too, but without a kick."""
        self.training.step, self.training.has_edge = self.training.steps, True
        self.training.probe(self.before, self.after)


def loop(rounds: int, every: int) -> dict[str, dict[str, float]]:
    """Seconds per 1,000 steps without and with probes, and the cost of the parts of a probe in gradients."""
    loops = {name: Loop(laptop_run(**changes)) for name, changes in NETWORKS.items()}
    times: dict[str, list[tuple[float, ...]]] = {name: [] for name in loops}
    for turn in range(rounds + 1):
        for name, one in loops.items():
            training = one.training
            step = seconds(one.step, 30)
            probe = seconds(one.probe, 3)
            point = Point(training.loss, training.w)
            product = seconds(lambda point=point, v=training.top: point.hessian_times(v), 10)  # type: ignore[misc]
            slope = seconds(lambda training=training: gradient(training.loss, training.w), 10)  # type: ignore[misc]
            if turn:  # the first warms up
                times[name].append((step, probe, product, slope))
    found = {}
    for name, measured in times.items():
        step, probe, product, slope = (statistics.median(column) for column in zip(*measured, strict=True))
        found[name] = {
            "seconds_per_1000_steps": 1000 * step,
            "seconds_per_1000_steps_with_probes": 1000 * step + 1000 / every * probe,
            "probe_ms": 1000 * probe,
            "products_per_probe": float(products_of_a_probe(loops[name])),
            "product_in_gradients": product / slope,
        }
    return found


def products_of_a_probe(one: Loop) -> int:
    """Hessian-vector products of one warm-started search for the sharpness, a step after the last."""
    point, count = Point(one.training.loss, one.training.w), 0

    def times(v: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return point.hessian_times(v)

    top_pair(times, one.training.top)
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what the probes of the curvature cost.")
    parser.add_argument("--output", type=Path, required=True, help="file to write")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--every", type=int, default=40, help="steps between probes, as at the laptop scale")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result = {
        "machine": {"processor": platform.processor() or platform.machine(), "torch": torch.__version__},
        "rounds": arguments.rounds,
        "steps_between_probes": arguments.every,
        "loop": loop(arguments.rounds, arguments.every),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
