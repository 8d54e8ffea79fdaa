"""How much stacking pays: networks per second of CPU time, stacked, one after another, and by scikit-learn.

A maintainer's tool: `PYTHONPATH=workflow python benchmarks/norms.py > results/published/norms/benchmark.json`. The task
is one stack of design D1: 64 networks 20 – 64 – 32 – 1 on the 120 rows of a fold, batches of 32, one CPU thread. The
ways take turns, so that what else the machine does falls on all of them. MLPRegressor takes as many steps, by Adam; it
has l2 alone. Without scikit-learn its line is left out, with a sentence on standard error.
"""

import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy and PyTorch read it

import numpy as np
import torch

from effective_lr.studies.norms.data import CPU, Scaler, design
from effective_lr.studies.norms.settings import Arm, Run
from effective_lr.studies.norms.stack import Stack

EPOCHS, ALONE, REPETITIONS = 100, 2, 3
RUN = Run(
    kind="tuned", correlation="equal", truth="linear", rho=0.75, inputs=20, support=10, train_size=120, test_size=50,
    folds=5, hidden=64, second=32, lr=0.001, steps=EPOCHS, noise=2.0, seed=0, arms="covridge: 0.1",
)  # fmt: skip
ARMS = [Arm("covridge", 0.9 * k / 64, 0.1) for k in range(1, 65)]
TASK = design(RUN)
X, Y = Scaler(TASK.train_x)(TASK.train_x).float(), torch.from_numpy(TASK.train_y).float()


@torch.inference_mode()
def trained(arms: list[Arm]) -> int:
    """These networks in one stack."""
    stack = Stack(arms, (20, 64, 32, 1), RUN.seed, RUN.lr, CPU)
    covariances = stack.covariances(X, RUN.delta)
    for epoch in range(EPOCHS):
        order = torch.from_numpy(np.random.default_rng(epoch).permutation(len(X)))
        for batch in order.split(RUN.batch_size):
            stack.step(X[batch], Y[batch], covariances, RUN.delta)
    return len(arms)


def by_scikit_learn() -> int:
    from sklearn.neural_network import MLPRegressor

    for k in range(ALONE):
        MLPRegressor(
            hidden_layer_sizes=(64, 32),
            alpha=0.1,
            batch_size=RUN.batch_size,
            learning_rate_init=RUN.lr,
            max_iter=EPOCHS,
            tol=0.0,
            n_iter_no_change=EPOCHS,
            random_state=k,
        ).fit(X.numpy(), Y.numpy())
    return ALONE


def ways() -> dict[str, Callable[[], int]]:
    found: dict[str, Callable[[], int]] = {
        "stacked": lambda: trained(ARMS),
        "one_by_one": lambda: sum(trained([arm]) for arm in ARMS[:ALONE]),
    }
    try:
        import sklearn.neural_network  # noqa: F401
    except ImportError:
        print("scikit-learn is not installed: MLPRegressor is left out", file=sys.stderr)
        return found
    return {**found, "mlp_regressor": by_scikit_learn}


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of networks that have not converged
    speeds: dict[str, list[float]] = {name: [] for name in ways()}
    for _ in range(REPETITIONS):
        for name, way in ways().items():
            start = time.process_time()
            count = way()
            # To the 500 epochs that are reported.
            speeds[name].append(count * EPOCHS / 500 / (time.process_time() - start))
    found: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": platform.machine(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "networks": len(ARMS),
        "epochs": 500,
        "networks_per_second": {name: float(np.median(values)) for name, values in speeds.items()},
        "spread": {name: [min(values), max(values)] for name, values in speeds.items()},
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
