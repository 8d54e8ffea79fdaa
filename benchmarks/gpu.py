"""What a GPU makes of the trainings of `normalization`: whether it agrees with the CPU, and how fast it is.

    PYTHONPATH=workflow python benchmarks/gpu.py          about three minutes; it has not run on a GPU yet
    PYTHONPATH=workflow python benchmarks/gpu.py --cpu    tries the script without one

The networks, the optimizers and the loop are those of the study. Images are synthetic, since speed does not depend on
what they show; the network is that of the scale `paper`. Evaluations, and what is sampled late in a run, are left out.
"""

import argparse
import math
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from threading import BrokenBarrierError
from typing import Any

import torch
from torch import Tensor

from effective_lr.studies.normalization import STUDY
from effective_lr.studies.normalization.settings import CLASSES, DATASETS, VALIDATION_SIZE, Run
from effective_lr.studies.normalization.training import Row, Training, batches, load, train

NORMALIZATIONS = ("batch", "weight", "layer")
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "lr": 0.16, "affine_lr": 0.1},
    "projected": {"optimizer": "sgd", "lr": 0.16, "affine_lr": 0.1, "projected": True},
    "nesterov": {"optimizer": "nesterov", "lr": 0.02, "affine_lr": 0.02},
    "adam": {"optimizer": "adam", "lr": 0.003, "affine_lr": 0.003},
    "rmsprop": {"optimizer": "rmsprop", "lr": 0.003, "affine_lr": 0.003},
    "adamw": {"optimizer": "adamw", "lr": 0.009, "affine_lr": 0.003},
}
FULL: dict[str, Any] = {
    "dataset": "cifar10",
    "resolution": 32,
    "train_size": 10_000,
    "validation_size": 100,
    "test_size": 100,
    "width": 64,
    "normalization": "batch",
    "norm_eps": 1e-5,
    "initial_norm": 1.0,
    "momentum": 0.9,
    "optimizer_eps": 1e-8,
    "l2": 0.004,
    "batch_size": 128,
    "steps": 10**9,  # without an end
    "probes": 1,
    "evaluations": 1,
    "late_fraction": 0.5,
    "batch_statistics": "recomputed",
    "statistics_size": 64,
    "seed": 200,
}
TINY = {**FULL, "resolution": 16, "train_size": 128, "width": 4, "batch_size": 16}
STEPS = 20  # that devices are compared over
COMPARED = ("train_loss", "norm_squared")
ALLOWED = 1e-6  # relative difference in float64
JOBS = (1, 2, 4, 8, 16)
WARM_UP, LOOK = 100, 25  # steps before the clock starts, and between looks at it, for which the device is waited for
PATIENCE = 300  # seconds until all processes are warm
barrier: Barrier  # at which the processes that share the device wait for one another; `share` sets it


def synthetic(run: Run, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Noise in the form of prepared data."""
    generator = torch.Generator().manual_seed(run.seed)
    tensors = {}
    for split, size in (("train", run.train_size + VALIDATION_SIZE), ("test", run.test_size)):
        shape = (size, DATASETS[run.dataset].channels, run.resolution, run.resolution)
        tensors[f"{split}_images"] = torch.randn(shape, generator=generator, dtype=dtype)
        tensors[f"{split}_labels"] = torch.randint(CLASSES, (size,), generator=generator)
    return tensors


# Agreement


def difference(ours: list[Row], theirs: list[Row]) -> float:
    """The largest relative difference of losses and norms; infinite where one is not a number."""
    pairs = [(a[3], b[3]) for a, b in zip(ours, theirs, strict=True) if a[2] in COMPARED]
    found = [abs(a - b) / abs(b) for a, b in pairs]
    return max(found) if all(map(math.isfinite, found)) else math.inf


def differences(device: torch.device) -> dict[str, list[float]]:
    """How far float64 training on the device is from that on the CPU, by normalization, of each optimizer."""
    base = {**TINY, "steps": STEPS, "probes": 10 * STEPS}  # so many that each step is one
    tensors = synthetic(Run(**base, **OPTIMIZERS["sgd"]), torch.float64)

    def rows(run: Run, where: torch.device) -> list[Row]:
        return train(run, load(tensors, run, where), dtype=torch.float64).rows

    found: dict[str, list[float]] = {}
    for normalization in NORMALIZATIONS:
        runs = [Run(**{**base, **rule, "normalization": normalization}) for rule in OPTIMIZERS.values()]
        found[normalization] = [difference(rows(run, device), rows(run, torch.device("cpu"))) for run in runs]
    return found


# Speed


def share(all_are_warm: Barrier) -> None:
    """Give a process the barrier."""
    global barrier
    barrier = all_are_warm


def images_per_second(run: Run, device: torch.device, window: float) -> float:
    """Training images per second of this process, over a window that all processes begin together."""
    try:
        training = Training(run, load(synthetic(run), run, device))
        for batch in batches(run, device):
            training.advance(batch)
            if training.step < WARM_UP or training.step % LOOK:
                continue
            if device.type == "cuda":
                torch.cuda.synchronize()
            if training.step == WARM_UP:
                barrier.wait(PATIENCE)
                start = time.perf_counter()
            elif time.perf_counter() - start > window:
                break
        return (training.step - WARM_UP) * run.batch_size / (time.perf_counter() - start)
    except RuntimeError:  # out of memory, too
        barrier.abort()
        raise


def together(run: Run, device: torch.device, window: float, jobs: int) -> float:
    """Training images per second of so many processes that share the device. Raises the RuntimeError of one of them."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, share, (context.Barrier(jobs),)) as pool:
        calls = [pool.submit(images_per_second, run, device, window) for _ in range(jobs)]
        failures = [error for call in calls if (error := call.exception())]
        for error in sorted(failures, key=lambda error: isinstance(error, BrokenBarrierError)):
            raise error  # the cause before those that it stopped
        return sum(call.result() for call in calls)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure a GPU: agreement with the CPU, and speed by jobs at a time.")
    parser.add_argument("--cpu", action="store_true", help="try the script on the CPU; its speeds mean nothing")
    arguments = parser.parse_args()
    if not arguments.cpu and not torch.cuda.is_available():
        parser.error("PyTorch sees no GPU; --cpu tries the script without one")
    device = torch.device("cpu" if arguments.cpu else "cuda")
    print(f"{'CPU' if arguments.cpu else torch.cuda.get_device_name()}, PyTorch {torch.__version__}")

    print(f"\nLargest relative difference from the CPU over {STEPS} steps in float64; allowed: {ALLOWED:.0e}")
    print(f"{'':10}", *(f"{optimizer:>10}" for optimizer in OPTIMIZERS))
    found = differences(device)
    for normalization, values in found.items():
        print(f"{normalization:10}", *(f"{value:10.1e}" for value in values), flush=True)

    run = Run(**(TINY if arguments.cpu else FULL), **OPTIMIZERS["sgd"])
    per_image = STUDY.operations(run) / (run.steps * run.batch_size)
    print("\njobs at a time   images per second   floating point operations per second")
    speeds: dict[int, float] = {}
    for jobs in JOBS[:2] if arguments.cpu else JOBS:
        try:
            speeds[jobs] = together(run, device, 0.2 if arguments.cpu else 5.0, jobs)
        except RuntimeError as error:
            print(f"{jobs:14}   not measured: {str(error)[:200] or type(error).__name__}")
            break
        print(f"{jobs:14}   {speeds[jobs]:17,.0f}   {speeds[jobs] * per_image:36.2e}", flush=True)
    if speeds:
        best = max(speeds, key=lambda jobs: speeds[jobs])
        print(f"\nIn config/config.yaml: gpu_slots: {best}, for {speeds[best] * per_image:.1e} operations per second.")
        print("`make plan SCALE=paper` prints how many operations the scale has.")
    return 0 if speeds and all(value <= ALLOWED for values in found.values() for value in values) else 1


if __name__ == "__main__":
    sys.exit(main())
