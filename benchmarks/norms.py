"""How much stacking pays: networks per second, stacked, one after another, and by scikit-learn's MLPRegressor.

A maintainer's tool: `PYTHONPATH=workflow python benchmarks/norms.py > results/published/norms/benchmark.json`. The task
is one replicate of `alignment`: 36 networks of 50 – 8 – 1 on 100 samples, 900 steps of batch 32, one CPU thread. The
three ways take turns, so that what else the machine does falls on all of them. MLPRegressor takes as many steps, by SGD
with the same momentum; it has l2 alone.
"""

import json
import os
import platform
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy and PyTorch read it

import numpy as np
import sklearn
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor

from effective_lr.studies.norms.data import simulate
from effective_lr.studies.norms.settings import Run, parse_arms
from effective_lr.studies.norms.training import load, train

STRENGTHS = "0.001 0.00562 0.0316 0.178 1"
ARMS = f"none: 0; l2 l1 l1+l2 car scar inverse: {STRENGTHS}; l2: 0.01 0.02 0.05 0.1 0.5"
TASK: dict[str, Any] = {"kind": "network", "rho": 0.9, "truth": "high", "steps": 900, "seed": 0, "lr_drop": 1.0}
REPETITIONS = 3


def stacked(run: Run) -> int:
    train(run, load({}, run, torch.device("cpu")))
    return len(parse_arms(run.arms))


def one_by_one(run: Run) -> int:
    """A few arms of every kind, one run each."""
    chosen = parse_arms(run.arms)[::6]
    for penalty, strength in chosen:
        single = run.changed(arms=f"{penalty}: {strength:g}")
        train(single, load({}, single, torch.device("cpu")))
    return len(chosen)


def by_scikit_learn(run: Run) -> int:
    task = simulate(run)
    epochs = run.steps // (run.train_size // run.batch_size)
    strengths = [float(value) for value in STRENGTHS.split()]
    for l2 in strengths:
        model = MLPRegressor(
            hidden_layer_sizes=(run.hidden,),
            solver="sgd",
            alpha=run.batch_size * l2,
            batch_size=run.batch_size,
            learning_rate_init=run.lr,
            momentum=run.momentum,
            nesterovs_momentum=False,
            max_iter=epochs,
            tol=0.0,
            n_iter_no_change=epochs,
            random_state=run.seed,
        )
        model.fit(task.train_x, task.train_y)
    return len(strengths)


WAYS: dict[str, Callable[[Run], int]] = {
    "stacked": stacked,
    "one_by_one": one_by_one,
    "mlp_regressor": by_scikit_learn,
}


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    run = Run(arms=ARMS, **TASK)
    speeds: dict[str, list[float]] = {name: [] for name in WAYS}
    for way in WAYS.values():
        way(run.changed(steps=20))  # warm
    for _ in range(REPETITIONS):
        for name, way in WAYS.items():
            start = time.perf_counter()
            count = way(run)
            speeds[name].append(count / (time.perf_counter() - start))
    found = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": platform.machine(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "scikit-learn": sklearn.__version__,
        },
        "networks": len(parse_arms(ARMS)),
        "steps": run.steps,
        "networks_per_second": {name: float(np.median(values)) for name, values in speeds.items()},
        "spread": {name: [min(values), max(values)] for name, values in speeds.items()},
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
