"""Train the runs of a shard one after another and write what they measured, with its provenance, as one table.

The table is tidy: run_id, step, layer ('' for the whole network), quantity, value. Two clocks: at log-spaced probes
the norms, gradients and angles of single steps, in the late part of a run their time means and the evaluations.

    run       step t    train_loss; per layer norm_squared, gradient_squared, g_squared, angle_squared, gamma_norm
              late t    test_error, test_loss, validation_error, validation_loss
              last t    late_train_loss; per layer late_norm_squared, late_gradient_squared, late_g_squared,
                        late_angle_squared, group_size (weights in a scale group)
              any t     diverged, in place of all that would have followed

Steps count from 1. Norms and gradients are those that a step starts from, the gradient is that of the data term alone,
the angle (radians) is between the weights before and after the step. `g_squared` is ‖∇‖²‖w‖², the G² of the theory.
All are taken for each scale group; a layer's value is the median over its groups (for late values: of time means).
"""

import argparse
import hashlib
import json
import math
import os
import platform
import resource
import signal
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effective_lr.config import Run, UserError
from effective_lr.data import Splits, load
from effective_lr.networks import NormalizedLayer, build_network, normalized_layers
from effective_lr.optimizers import build_optimizer, project
from effective_lr.storage import read_table, with_provenance, write_table

Row = tuple[int, str, str, float]  # step, layer, quantity, value
SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("step", pa.int32()),
        ("layer", pa.string()),
        ("quantity", pa.string()),
        ("value", pa.float64()),
    ]
)
EVALUATION_CHUNK = 512
DIVERGENCE_CHECK = 25  # steps between looks at the loss: a diverged run costs little
LATE_SAMPLING = 10  # steps between samples of the late means: norms and angles change slowly


def probe_steps(run: Run) -> set[int]:
    """About `run.probes` log-spaced steps from the first to the last."""
    return set(np.unique(np.geomspace(1, run.steps, run.probes).round().astype(int)).tolist())


def evaluation_steps(run: Run) -> set[int]:
    """`run.evaluations` evenly spaced steps, the last of them the last of the run, all in its late part."""
    late = run.late_fraction * run.steps
    return {round(run.steps - late * k / run.evaluations) for k in range(run.evaluations)}


def batches(run: Run, device: torch.device) -> Iterator[Tensor]:
    """Indices (batch_size,) of each step's images: an epoch is a random order, its incomplete last batch is left out.

    The order depends on the seed alone and is drawn on the CPU, so that every device sees the same batches.
    """
    generator = torch.Generator().manual_seed(run.seed + 1_000_000_007)  # apart from the stream of the weights
    per_epoch = run.train_size // run.batch_size
    for step in range(run.steps):
        if step % per_epoch == 0:
            order = torch.randperm(run.train_size, generator=generator).to(device)
        start = step % per_epoch * run.batch_size
        yield order[start : start + run.batch_size]


def angles(before: Tensor, after: Tensor, layer: NormalizedLayer) -> Tensor:
    """The angle (groups,) in radians between two values of a layer's weights, for each scale group.

    2·atan2(‖u − v‖, ‖u + v‖) of the unit vectors: unlike arccos it is exact for the small angles of one step.
    """
    shape = (-1, *[1] * (before.dim() - 1))
    u, v = (w.double() / layer.group_norms(w.double()).view(shape) for w in (before, after))
    return 2 * torch.atan2(layer.group_norms(u - v), layer.group_norms(u + v))


def median(groups: Tensor) -> float:
    """The median over scale groups; torch.median would take the lower of the two middle values of an even number."""
    return float(groups.quantile(0.5))


@torch.no_grad()
def recompute_batch_statistics(network: nn.Module, images: Tensor) -> None:
    """Set the running statistics to their mean over `images`, in chunks of one size, at the present weights."""
    network.train()
    layers = [layer for _, layer in normalized_layers(network)]
    for count, chunk in enumerate(images.tensor_split(math.ceil(len(images) / EVALUATION_CHUNK)), start=1):
        for layer in layers:
            layer.running_momentum = 1 / count  # a cumulative mean
        network(chunk)
    for layer in layers:
        layer.running_momentum = 0.1


@torch.no_grad()
def evaluate(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean cross-entropy and the fraction of errors."""
    network.eval()
    loss = torch.zeros((), dtype=torch.float64, device=images.device)
    errors = torch.zeros((), dtype=torch.int64, device=images.device)
    for x, y in zip(images.split(EVALUATION_CHUNK), labels.split(EVALUATION_CHUNK), strict=True):
        logits = network(x)
        loss += F.cross_entropy(logits, y, reduction="sum")
        errors += (logits.argmax(1) != y).sum()
    network.train()
    return float(loss) / len(labels), float(errors) / len(labels)


def train_run(run: Run, splits: Splits, dtype: torch.dtype = torch.float32) -> list[Row]:
    """Train one network on the device that holds `splits`, cut to the run's sizes, and return what it measured."""
    device = splits.train_images.device
    network = build_network(run, dtype).to(device)
    optimizer = build_optimizer(run, network)
    layers = list(normalized_layers(network))
    rows: list[Row] = []
    probes, evaluations = probe_steps(run), evaluation_steps(run)
    late_start = min(round(run.steps * (1 - run.late_fraction)), run.steps - 1)
    late_loss = torch.zeros((), device=device)
    late_sums: dict[tuple[str, str], Tensor] = {}
    late_samples = 0

    for step, batch in enumerate(batches(run, device), start=1):
        loss = F.cross_entropy(network(splits.train_images[batch]), splits.train_labels[batch])
        optimizer.zero_grad()
        loss.backward()

        is_late = step > late_start
        is_probe, is_sample = step in probes, is_late and step % LATE_SAMPLING == 0
        if is_probe or is_sample:
            # Copies: the step changes the weights, and PyTorch's optimizers for a GPU change gradients too.
            before = [(layer.weight.detach().clone(), layer.weight.grad.clone()) for _, layer in layers]  # type: ignore[union-attr]
        optimizer.step()
        if run.projected:
            project(network)
        if is_late:
            late_loss += loss.detach()

        if is_probe or is_sample:
            for (name, layer), (weight, gradient) in zip(layers, before, strict=True):
                norm, slope = (
                    layer.group_norms(weight).double() ** 2,
                    layer.group_norms(gradient).double() ** 2,
                )
                measured = {
                    "norm_squared": norm,
                    "gradient_squared": slope,
                    "g_squared": norm * slope,
                    "angle_squared": angles(weight, layer.weight.detach(), layer) ** 2,
                }
                if is_probe:
                    rows += [(step, name, what, median(value)) for what, value in measured.items()]
                    if layer.gamma is not None:
                        rows.append((step, name, "gamma_norm", float(layer.gamma.detach().norm())))
                if is_sample:
                    for what, value in measured.items():
                        late_sums[name, what] = late_sums.get((name, what), torch.zeros_like(value)) + value
            late_samples += is_sample
            if is_probe:
                rows.append((step, "", "train_loss", float(loss.detach())))

        if (step % DIVERGENCE_CHECK == 0 or step in evaluations) and not torch.isfinite(loss):
            rows.append((step, "", "diverged", 1.0))
            return rows

        if step in evaluations:
            if run.normalization == "batch" and run.batch_statistics == "recomputed":
                recompute_batch_statistics(network, splits.train_images[: run.statistics_size])
            for split, images, labels in [
                ("validation", splits.validation_images, splits.validation_labels),
                ("test", splits.test_images, splits.test_labels),
            ]:
                split_loss, error = evaluate(network, images, labels)
                rows += [(step, "", f"{split}_loss", split_loss), (step, "", f"{split}_error", error)]

    rows.append((run.steps, "", "late_train_loss", float(late_loss) / (run.steps - late_start)))
    rows += [
        (run.steps, name, f"late_{what}", median(total / late_samples)) for (name, what), total in late_sums.items()
    ]
    rows += [(run.steps, name, "group_size", float(layer.group_size)) for name, layer in layers]
    return rows


def fingerprint(run: Run, code: str, data: str) -> str:
    """What a result depends on: the settings of the run, the syntax trees of the training sources, the data."""
    parts = json.dumps([run.model_dump(exclude_defaults=True), code, data], sort_keys=True)
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def train_or_reuse(
    run: Run, splits: Splits, cache: Path, code: str, data: str, reuse: bool = True
) -> tuple[pa.Table, dict[str, Any]]:
    """The table and provenance of a run, from the run cache if it has them, else from training."""
    path = cache / f"{fingerprint(run, code, data)}.parquet"
    if reuse and path.exists():
        try:
            table, [provenance] = read_table(path)
            return table, {**provenance, "reused": True}
        except UserError as error:
            print(f"{error} — training it again", flush=True)
    start = time.perf_counter()
    rows = train_run(run, splits)
    seconds = time.perf_counter() - start
    device = splits.train_images.device
    diverged = [step for step, _, quantity, _ in rows if quantity == "diverged"]
    steps = diverged[0] if diverged else run.steps
    provenance = {
        "run_id": run.run_id,
        "run": run.model_dump(),
        "fingerprint": path.stem,
        "code": code,
        "data": data,
        "diverged": diverged[0] if diverged else None,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "samples_per_second": round(steps * run.batch_size / seconds),
        "peak_memory_mb": round(peak_memory_mb(device)),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU {platform.machine()}",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }
    columns = [[run.run_id] * len(rows), *map(list, zip(*rows, strict=True))]
    table = pa.table(dict(zip(SCHEMA.names, columns, strict=True)), schema=SCHEMA)
    write_table(with_provenance(table, [provenance]), path)
    return table, {**provenance, "reused": False}


def peak_memory_mb(device: torch.device) -> float:
    """The most memory held so far: on the device, or by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (2**20 if sys.platform == "darwin" else 2**10)


def choose_device(name: str) -> torch.device:
    """The device for 'auto', 'cpu' or 'cuda', set up for plain float32."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("config: device = 'cuda': no CUDA device is visible here; use device=auto or device=cpu")
    torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(1)  # one process per core is faster than one process with two threads
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def describe(run: Run, table: pa.Table, provenance: dict[str, Any]) -> str:
    """One line for a person who follows the training."""
    if provenance["diverged"]:
        result = f"diverged at step {provenance['diverged']}"
    else:
        errors = table.filter(pc.equal(table["quantity"], "test_error"))["value"]
        result = f"test error {100 * pc.mean(errors).as_py():.1f} %"
    how = "reused, from" if provenance["reused"] else f"{provenance['seconds']:.1f} s,"
    when = provenance["finished"] if provenance["reused"] else f"{provenance['samples_per_second']} images/s"
    return f"{run.run_id}: {result} ({how} {when})"


def interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signum)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", required=True, help="JSON list of the settings of each run")
    parser.add_argument("--code", required=True, help="fingerprint of the training sources")
    parser.add_argument("--tensors", type=Path, required=True, help="prepared data")
    parser.add_argument("--record", type=Path, required=True, help="its record")
    parser.add_argument("--cache", type=Path, required=True, help="folder of finished runs")
    parser.add_argument("--output", type=Path, required=True, help="the table to write")
    parser.add_argument(
        "--device", default=os.environ.get("EFFECTIVE_LR_DEVICE", "auto"), choices=["auto", "cpu", "cuda"]
    )
    parser.add_argument(
        "--retrain",
        action="store_true",
        default=bool(os.environ.get("EFFECTIVE_LR_RETRAIN")),
        help="train every run, whatever the cache holds",
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)

    tables, provenances = [], []
    runs = [Run(**settings) for settings in json.loads(arguments.runs)]
    try:
        splits = load(arguments.tensors, arguments.record)
        first = runs[0]  # the runs of a shard share their data
        splits = splits.subset(first.train_size, first.validation_size, first.test_size).to(
            choose_device(arguments.device)
        )
        for number, run in enumerate(runs, start=1):
            table, provenance = train_or_reuse(
                run, splits, arguments.cache, arguments.code, splits.sha256, reuse=not arguments.retrain
            )
            tables.append(table)
            provenances.append(provenance)
            print(f"[{number}/{len(runs)}] {describe(run, table, provenance)}", flush=True)
        write_table(with_provenance(pa.concat_tables(tables), provenances), arguments.output)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(
            f"{runs[0].shard_id}: stopped; its {len(tables)} finished of {len(runs)} runs are kept, "
            "the same command goes on from there",
            file=sys.stderr,
        )
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
