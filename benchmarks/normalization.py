"""How fast training is beside what one would write first, and what the workflow adds to it: `make bench`.

    PYTHONPATH=workflow python benchmarks/normalization.py --output results/benchmark.json
    PYTHONPATH=workflow python benchmarks/normalization.py --output trial.json --quick    # its numbers mean nothing

Scripts are compared as whole machines: images per second summed over one process a core, each with one thread. (On two
cores neither one process with two threads nor workers of the DataLoader made a script faster.) The processes stay alive
and take turns, one window of seconds after the other, so that a slower minute of the machine meets all of them; results
are medians over the rounds.

    usual     torchvision's dataset with transforms, a DataLoader, nn.Sequential, torch.optim, loss.item() at each step
    tensors   the same model and optimizer; the data is one tensor, batches are taken by index
    compiled  `tensors` through torch.compile, channels last
    ours      the loop of training.py, as the training jobs run it
"""

import argparse
import gzip
import json
import multiprocessing
import os
import platform
import runpy
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from effective_lr.engine import grid
from effective_lr.engine.contents import load_chapter
from effective_lr.engine.grid import JOB_CONFIG
from effective_lr.engine.inputs import DataFiles, data_of
from effective_lr.engine.jobs import commit
from effective_lr.engine.storage import read_provenance
from effective_lr.errors import UserError
from effective_lr.prepare import catalog, dataset, sources
from effective_lr.studies.normalization import STUDY
from effective_lr.studies.normalization.data import Splits
from effective_lr.studies.normalization.networks import build_network, normalized_layers
from effective_lr.studies.normalization.settings import DATASETS, Run
from effective_lr.studies.normalization.training import Training, batches, load

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
PLAIN = runpy.run_path(str(ROOT / "tests/plain_pytorch.py"))  # the study without the package
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "8000000000"}  # as training jobs have it
SIZES = (14, 28)
ROUNDS, WINDOW = 5, 3.0  # seconds
WARM_UP = 20  # steps
GRIDS = (100, 1_000, 10_000)  # runs
MATRIX = 1024
Result = dict[str, Any]


def laptop_run(size: int, **changes: Any) -> Run:
    """The run that is timed: SGD with batch normalization, as the laptop scale has it, without an end.

    So it never comes to probes and evaluations, which the other scripts do not have.
    """
    defaults = grid.load_scale(ROOT / "config" / STUDY.name, "laptop", STUDY)[0].defaults
    sgd = {"normalization": "batch", "optimizer": "sgd", "lr": 0.16, "l2": 0.004, "affine_lr": 0.1, "seed": 100}
    return Run(**{**defaults, **sgd, "resolution": size, "steps": 10**9, "probes": 1, **changes})


def prepared(run: Run) -> DataFiles:
    """The prepared data of a run, made if need be."""
    files = data_of(STUDY, run)
    assert files is not None
    if not all(path.exists() for path in files):
        catalog.prepare(files.record.stem, Path(grid.load_config(ROOT, {}).data_folder), *files)
    return files


def splits(run: Run) -> Splits:
    return load(dataset.load(*prepared(run)), run, CPU)


# The scripts: each makes a step at a time, and gives how much work that was


def plain(run: Run) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The network and the optimizer from PyTorch's modules, from the same start."""
    start = [layer.weight.detach().contiguous().numpy() for _, layer in normalized_layers(build_network(run))]
    settings = run.model_dump()
    model, parameters = PLAIN["build"](settings, DATASETS[run.dataset].channels, torch.float32)
    PLAIN["begin"](parameters, start)
    return model, PLAIN["optimizer_of"](settings, parameters)


def usual_loader(run: Run) -> Any:
    """torchvision's dataset with its usual transforms, from the files of the Debian package, in a DataLoader."""
    from torchvision import datasets, transforms

    if not sources.DEBIAN_FOLDER.exists():
        raise UserError(f"{sources.DEBIAN_FOLDER}: missing; install the Debian package dataset-fashion-mnist")
    steps = [transforms.Resize(run.resolution)] if run.resolution < 28 else []
    steps += [transforms.ToTensor(), transforms.Normalize((0.286,), (0.353,))]
    with tempfile.TemporaryDirectory() as root:
        raw = Path(root, "FashionMNIST", "raw")
        raw.mkdir(parents=True)
        for path in sources.DEBIAN_FOLDER.glob("*-ubyte.gz"):
            (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
        whole = datasets.FashionMNIST(root, train=True, transform=transforms.Compose(steps))  # it holds its images
    part = torch.utils.data.Subset(whole, range(run.train_size))
    return torch.utils.data.DataLoader(part, batch_size=run.batch_size, shuffle=True, drop_last=True)


def usual(run: Run) -> Iterator[int]:
    loader, (model, optimizer) = usual_loader(run), plain(run)
    while True:
        for pictures, labels in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(pictures), labels)
            loss.backward()
            optimizer.step()
            loss.item()
            yield len(labels)


def tensors(run: Run, is_compiled: bool = False) -> Iterator[int]:
    data, (model, optimizer) = splits(run), plain(run)
    layout = torch.channels_last if is_compiled else torch.contiguous_format
    model, inputs = model.to(memory_format=layout), data.train_images.contiguous(memory_format=layout)

    def objective(pictures: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(model(pictures), labels)

    step = torch.compile(objective) if is_compiled else objective
    while True:
        for batch in torch.randperm(run.train_size).split(run.batch_size):
            optimizer.zero_grad()
            step(inputs[batch], data.train_labels[batch]).backward()
            optimizer.step()
            yield len(batch)


def compiled(run: Run) -> Iterator[int]:
    return tensors(run, is_compiled=True)


def ours(run: Run) -> Iterator[int]:
    training = Training(run, splits(run))
    for batch in batches(run, CPU):
        training.advance(batch)
        yield len(batch)


def sgemm(run: Run) -> Iterator[int]:
    a = torch.randn(MATRIX, MATRIX)
    while True:
        a @ a
        yield 2 * MATRIX**3


# Processes that take turns


def work(pipe: Any, script: Callable[[Run], Iterator[int]], size: int) -> None:
    """A process: it warms up, then for each window that it is sent works and answers how much it did a second."""
    torch.set_num_threads(1)
    steps = script(laptop_run(size))
    for _ in range(WARM_UP):
        next(steps)
    while True:
        window, start, done = pipe.recv(), time.perf_counter(), 0
        while time.perf_counter() - start < window:
            done += next(steps)
        pipe.send(done / (time.perf_counter() - start))


class Team:
    """The processes of one script that fill the machine together."""

    def __init__(self, script: Callable[[Run], Iterator[int]], size: int, cores: int) -> None:
        self.name, self.size, self.pipes, self.processes = script.__name__, size, [], []
        for key, value in ALLOCATOR.items():  # what a process starts with
            os.environ.pop(key, None)
            if script in (ours, compiled):
                os.environ[key] = value
        context = multiprocessing.get_context("spawn")
        for _ in range(cores):
            here, there = context.Pipe()
            process = context.Process(target=work, args=(there, script, size), daemon=True)
            process.start()
            there.close()
            self.pipes.append(here)
            self.processes.append(process)
        self.speed(0.1)  # once all are warm

    def speed(self, window: float) -> float:
        """What all processes together do in a second."""
        for pipe in self.pipes:
            pipe.send(window)
        try:
            return sum(pipe.recv() for pipe in self.pipes)
        except EOFError:
            raise UserError(f"benchmark: the script '{self.name}' ended early; its message is above") from None

    def close(self) -> None:
        for process in self.processes:
            process.terminate()
            process.join()


def speeds(rounds: int, window: float) -> Result:
    """Images per second of each script at each size, and the floating point operations per second of sgemm."""
    cores = os.cpu_count() or 1
    scripts = [(sgemm, SIZES[0]), *((script, size) for size in SIZES for script in (usual, tensors, ours))]
    if shutil.which("g++") or shutil.which("clang++"):
        scripts.append((compiled, SIZES[0]))
    teams = [Team(script, size, cores) for script, size in scripts]
    measured: list[list[float]] = [[] for _ in teams]
    for number in range(rounds):
        for team, values in zip(teams, measured, strict=True):
            values.append(team.speed(window))
        print(f"round {number + 1} of {rounds}", flush=True)
    for team in teams:
        team.close()
    limit, rows = statistics.median(measured[0]), []
    for team, values in zip(teams[1:], measured[1:], strict=True):
        speed, run = statistics.median(values), laptop_run(team.size)
        per_image = STUDY.operations(run) / (run.steps * run.batch_size)
        rows.append(
            {
                "script": team.name,
                "size": team.size,
                "setup": f"{cores} × 1 thread",
                "images_per_second": speed,
                "rounds": values,
                "share_of_sgemm": speed * per_image / limit,
            }
        )
        print(f"{team.name} at {team.size}×{team.size}: {speed:,.0f} images/s", flush=True)
    return {"sgemm_gflops": limit / 1e9, "scripts": rows}


# The workflow


def seconds(folder: Path, *command: str) -> float:
    """How long a module of Python takes in this folder; it must succeed."""
    environment = {**os.environ, **ALLOCATOR, "PYTHONPATH": str(ROOT / "workflow"), JOB_CONFIG: '{"device": "cpu"}'}
    words, start = [sys.executable, "-m", *command], time.perf_counter()
    result = subprocess.run(words, cwd=folder, env=environment, capture_output=True, encoding="utf-8")
    if result.returncode:
        raise UserError(f"benchmark: `{' '.join(words)}` failed: {(result.stdout + result.stderr)[-500:]}")
    return time.perf_counter() - start


def workflow(grids: tuple[int, ...]) -> Result:
    """What the workflow adds, in seconds: to plan by the size of the grid, and at the smoke scale a training job beside
    its training, a figure that is redrawn, and a run with nothing to do."""
    result: Result = {"plans": []}
    with tempfile.TemporaryDirectory(prefix="effective-lr-bench-") as name:
        folder = Path(name)
        scales = folder / "config" / STUDY.name
        shutil.copytree(ROOT / "config" / STUDY.name, scales)
        for path in prepared(laptop_run(SIZES[0])):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / path)

        def snakemake(scale: str, *words: str) -> float:
            config = ("--config", f"scale={scale}", "metrics=recompute")
            return seconds(folder, "snakemake", "--snakefile", str(ROOT / "workflow/Snakefile"), *words, *config)

        for runs in grids:
            axes = {"l2": [0.001 * k for k in range(10)], "seed": list(range(runs // 10))}
            settings = {"normalization": "batch", "optimizer": "sgd", "lr": 0.1, "affine_lr": 0.1, **axes}
            big = {"about": "a grid of this size", "grid": settings}
            content = {"based_on": "smoke", "experiments": {"big": big}}
            (scales / f"plan{runs}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
            result["plans"].append({"runs": runs, "seconds": snakemake(f"plan{runs}", "--dry-run", "--quiet")})

        run, table = load_chapter(ROOT, STUDY.name, "smoke").runs[0], folder / "run.parquet"
        job = ("train", "--study", STUDY.name, "--scale", "smoke", "--run", run.run_id, "--output", str(table))
        result["job_start_seconds"] = seconds(folder, "effective_lr", *job) - read_provenance(table)[0].seconds
        figure = ("plane", "--cores", str(os.cpu_count()))
        snakemake("smoke", *figure)
        (folder / "paper/build/smoke" / STUDY.name / "plane.pdf").unlink()
        result["redraw_seconds"] = snakemake("smoke", *figure)
        result["nothing_to_do_seconds"] = snakemake("smoke", *figure)
    return result


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def measure(is_quick: bool) -> Result:
    for size in SIZES:
        prepared(laptop_run(size))
    machine = {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "quick": is_quick,
    }
    speed = speeds(rounds=1, window=0.3) if is_quick else speeds(ROUNDS, WINDOW)
    added = workflow(GRIDS[:1] if is_quick else GRIDS)
    print(*(f"{what}: {value}" for what, value in added.items()), sep="\n")
    return {"machine": machine, "speed": speed, "workflow": added}


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure training speed and what the workflow adds to it.")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--quick", action="store_true", help="try the script; the numbers mean nothing")
    arguments = parser.parse_args()
    try:
        result = measure(arguments.quick)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
