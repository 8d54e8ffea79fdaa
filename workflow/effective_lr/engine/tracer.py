"""Train a sample of runs with whatever checkout is on the path, and write all rows and weights in full precision.

A script of certify.py, which gives it one task in JSON on standard input. It uses the interface of studies alone, so
it can drive the code of an earlier commit.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from effective_lr.engine.study import load


class Interrupted(Exception):
    """The run was stopped on purpose, to be resumed."""


def digest(weights: dict[str, torch.Tensor]) -> str:
    """A checksum of weights by name."""
    total = hashlib.sha256()
    for name, tensor in weights.items():
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def result(training: Any) -> dict[str, Any]:
    rows = [[step, layer, quantity, float(value).hex()] for step, layer, quantity, value in training.rows]
    return {"rows": rows, "weights": digest(training.weights)}


def main() -> None:
    task = json.loads(sys.stdin.read())
    study = load(task["study"])
    training = study.module("training")
    found: dict[str, Any] = {}
    for settings in task["runs"]:
        try:
            run = study.run(**settings)
        except ValidationError:
            continue  # a setting that this checkout does not know
        needed = study.data(run)
        tensors = torch.load(task["data"][needed][0], weights_only=True) if needed else {}
        data = training.load(tensors, run, torch.device("cpu"))
        found[run.run_id] = result(training.train(run, data))
        saved: list[bytes] = []

        def interrupt(state: Any, saved: list[bytes] = saved) -> None:
            if state.step >= state.steps // 2:
                saved.append(state.save())
                raise Interrupted

        try:
            training.train(run, data, after_step=interrupt)
        except Interrupted:
            found[f"{run.run_id}, resumed"] = result(training.train(run, data, saved=saved[0]))
    Path(task["output"]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
