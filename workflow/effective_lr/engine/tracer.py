"""Train a sample of runs with whatever checkout is on the path, and print all rows and weights in full precision.

A script of certify.py, which gives it one task in JSON on standard input. It uses the interface of studies alone, so
it can drive the code of an earlier commit.
"""

import hashlib
import json
import sys
from typing import Any

import torch
from pydantic import ValidationError

from effective_lr.engine.study import load


def digest(weights: dict[str, torch.Tensor]) -> str:
    """A checksum of weights by name."""
    total = hashlib.sha256()
    for name, tensor in weights.items():
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


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
        tensors = torch.load(task["data"][needed], weights_only=True) if needed else {}
        done = training.train(run, training.load(tensors, run, torch.device("cpu")))
        rows = [[step, layer, quantity, float(value).hex()] for step, layer, quantity, value in done.rows]
        found[run.run_id] = {"rows": rows, "weights": digest(done.weights)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
