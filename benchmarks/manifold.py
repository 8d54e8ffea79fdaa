"""What a step of each optimizer costs beside torch.optim.AdamW on the same network.

    PYTHONPATH=workflow python benchmarks/manifold.py

A maintainer's tool. All strategies take turns in one process, one step each, for many rounds; what counts is the median
over rounds, and the ratio of two medians of one call. Times of different calls or machines must not be compared. The
text is random, since speed does not depend on what it says. Targets: a constraint costs Adam at most a tenth of a step,
the matrix sign at most 35 %.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from effective_lr.engine import grid
from effective_lr.engine.study import load
from effective_lr.studies.manifold import training
from effective_lr.studies.manifold.data import Data
from effective_lr.studies.manifold.networks import loss
from effective_lr.studies.manifold.settings import Run

ROOT = Path(__file__).parents[1]
ARMS = ("adamw", "adam0", "adamh", "macro-F", "macro-S", "muonh")
TARGETS = {"adamh": 1.10, "macro-F": 1.35}  # at most, over torch.optim.AdamW on the same network, with RMSNorm
WARM_UP = 3  # rounds
SYMBOLS = 100_000  # of the text


def torch_adamw(run: Run, data: Data) -> Callable[[], None]:
    """One step of the study's network with torch.optim.AdamW for all parameters, and nothing measured."""
    trained = training.Training(run, data)
    adamw = torch.optim.AdamW(trained.network.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)

    def step() -> None:
        adamw.zero_grad(set_to_none=True)
        value = loss(trained.network, trained.next_batch())
        value.backward()
        adamw.step()
        value.item()

    return step


def study_step(run: Run, data: Data) -> Callable[[], None]:
    """One step of the study's loop, without probes and evaluations."""
    trained = training.Training(run, data)
    trained.probes, trained.evaluations = set(), set()
    return trained.advance


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what a step of each optimizer costs.")
    parser.add_argument("--scale", default="study", help="whose network is timed")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    arguments = parser.parse_args()

    defaults = grid.load_scale(ROOT / "config/manifold", arguments.scale, load("manifold"))[0].defaults
    # Small steps, so that nothing diverges, and so many that the late part, where more is measured, never comes.
    endless = {"lr_factor": 0.01, "initial_norm": 1.0, "steps": 10**9, "seed": 0}
    strategies = {}
    for rms_norm in ("pre", "none"):
        base = Run(**{**defaults, **endless, "rms_norm": rms_norm, "optimizer": "adamw"})
        text = torch.randint(base.vocabulary, (SYMBOLS,), generator=torch.Generator().manual_seed(0))
        data = training.load({"text": text}, base, torch.device("cpu"))
        strategies["torch AdamW", rms_norm] = torch_adamw(base, data)
        for optimizer in ARMS:
            strategies[optimizer, rms_norm] = study_step(base.changed(optimizer=optimizer), data)

    times: dict[tuple[str, str], list[float]] = {name: [] for name in strategies}
    for turn in range(arguments.rounds + WARM_UP):
        for name, step in strategies.items():
            start = time.perf_counter()
            step()
            if turn >= WARM_UP:
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    rows = {
        f"{optimizer}, {rms_norm}": {
            "ms": round(1000 * value, 2),
            "symbols_per_second": round(base.batch_size * base.context / value),
            "over_torch_adamw": round(value / medians["torch AdamW", rms_norm], 3),
        }
        for (optimizer, rms_norm), value in medians.items()
    }
    for label, row in rows.items():
        print(f"{label:17}", *(f"{key} {value:<9}" for key, value in row.items()))
    for optimizer, target in TARGETS.items():
        ratio = rows[f"{optimizer}, pre"]["over_torch_adamw"]
        met = "met" if ratio <= target else "MISSED"
        print(f"{optimizer}: {ratio} times a step of torch.optim.AdamW, target {target}: {met}")
    if arguments.output:
        machine = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__, "threads": 1}
        found = {"scale": arguments.scale, "rounds": arguments.rounds, "machine": machine, "strategies": rows}
        arguments.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
