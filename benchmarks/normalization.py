"""How fast training is against what one would write first, and what the workflow adds to it: `make bench`.

    python benchmarks/normalization.py measure --output results/benchmark.json
    python benchmarks/normalization.py page --input results/benchmark.json --output docs/performance.md
    python benchmarks/normalization.py figure --input results/benchmark.json --output docs/performance.png

Scripts are compared as whole machines: images per second summed over the processes that share the cores. Each script
runs in processes of its own that stay alive and take turns, one window of seconds after the other, so that a slower
minute of the machine meets all of them; results are medians over the rounds.

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
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from effective_lr.engine import grid
from effective_lr.engine.contents import load_chapters
from effective_lr.engine.jobs import commit
from effective_lr.engine.plan import data_files
from effective_lr.engine.storage import read_provenance, read_table
from effective_lr.errors import UserError
from effective_lr.prepare import images, prepared
from effective_lr.studies.normalization import STUDY, images_in_all
from effective_lr.studies.normalization.data import Splits
from effective_lr.studies.normalization.networks import build_network, normalized_layers
from effective_lr.studies.normalization.settings import Run
from effective_lr.studies.normalization.tables import SCRIPTS
from effective_lr.studies.normalization.training import Training, batches, load, train

ROOT = Path(__file__).parents[1]
DATA = ROOT / "results" / "data"
CPU = torch.device("cpu")
SPAWN = multiprocessing.get_context("spawn")
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "8000000000"}  # as training jobs have it
SIZES = (14, 28)
ROUNDS, WINDOW = 5, 3.0  # seconds
MATRIX = 1024
PLAIN_NAMES = {"usual": "the usual script", "tensors": "plain PyTorch on tensors"}
FACTORS = (("usual", 14, 4.0), ("usual", 28, 2.6), ("tensors", 14, 1.75))  # aimed at: times which script, at which size
# Linux counts the memory of the process that starts a command as the command's, so a small one must start it.
LAUNCHER = (
    "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
)
Result = dict[str, Any]


def laptop_run(size: int, **changes: Any) -> Run:
    """The run that is timed: SGD with batch normalization, as the laptop scale has it."""
    defaults = grid.load_scale(ROOT / "config" / STUDY.name, "laptop", STUDY)[0].defaults
    sgd = {"normalization": "batch", "optimizer": "sgd", "lr": 0.16, "l2": 0.004, "affine_lr": 0.1, "seed": 100}
    return Run(**{**defaults, **sgd, "resolution": size, **changes})


def files_for(run: Run) -> tuple[Path, Path]:
    """The prepared data of a run, made if need be."""
    name = f"{run.dataset}-{run.resolution}"
    files = data_files(DATA, name)
    if not all(path.exists() for path in files):
        prepared.write(name, ROOT / "data", *files)
    return files


def splits(run: Run) -> Splits:
    return load(prepared.load(*files_for(run)), run, CPU)


def image_operations(run: Run) -> float:
    """Floating point operations of a training image."""
    return STUDY.operations(run) / images_in_all(run)


# The scripts: each makes one step at each turn, and says how much work that was


def plain_model(run: Run) -> nn.Sequential:
    """The network from PyTorch's modules, from the same start."""
    network = build_network(run).to(memory_format=torch.contiguous_format)
    layers = [layer for _, layer in normalized_layers(network)]
    modules: list[nn.Module] = []
    for number, layer in enumerate(layers):
        units, inputs = layer.weight.shape[:2]
        linear: Any = nn.Conv2d(inputs, units, 3, padding=1, bias=False) if layer.convolution else None
        linear = linear or nn.Linear(inputs, units, bias=False)
        linear.weight.data.copy_(layer.weight.data)
        norm = nn.BatchNorm2d if layer.convolution else nn.BatchNorm1d
        modules += [linear, norm(units, eps=run.norm_eps)]
        if number < 3:
            modules.append(nn.ReLU())
        if number < 2:
            modules.append(nn.MaxPool2d(2))
        if number == 2:
            modules += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*modules)


def plain_optimizer(run: Run, model: nn.Module) -> torch.optim.Optimizer:
    weights = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    affine = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    groups: list[dict[str, Any]] = [
        {"params": weights, "lr": run.lr, "weight_decay": 2 * run.l2},
        {"params": affine, "lr": run.affine_lr},
    ]
    return torch.optim.SGD(groups)


def usual_loader(run: Run, workers: int) -> Any:
    """torchvision's dataset with its usual transforms, from the files of the Debian package, in a DataLoader."""
    from torchvision import datasets, transforms

    if not images.DEBIAN_FOLDER.exists():
        raise UserError(
            f"{images.DEBIAN_FOLDER}: missing; the benchmark needs the Debian package dataset-fashion-mnist: install it"
        )
    root = Path(tempfile.mkdtemp(prefix="effective-lr-bench-"))
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for path in images.DEBIAN_FOLDER.glob("*-ubyte.gz"):
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    steps = [transforms.Resize(run.resolution)] if run.resolution < 28 else []
    steps += [transforms.ToTensor(), transforms.Normalize((0.286,), (0.353,))]
    dataset = datasets.FashionMNIST(str(root), train=True, transform=transforms.Compose(steps))
    shutil.rmtree(root)  # the dataset holds its images
    return torch.utils.data.DataLoader(
        torch.utils.data.Subset(dataset, range(run.train_size)),
        batch_size=run.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
    )


def usual_steps(run: Run, workers: int, model: nn.Module) -> Iterator[Tensor]:
    """The loss of each step of the usual script, without an end."""
    loader, optimizer = usual_loader(run, workers), plain_optimizer(run, model)
    while True:
        for pictures, labels in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(pictures), labels)
            loss.backward()
            optimizer.step()
            yield loss


def usual(run: Run, workers: int) -> Iterator[int]:
    torch.manual_seed(run.seed)
    for loss in usual_steps(run, workers, plain_model(run)):
        loss.item()
        yield run.batch_size


def tensors(run: Run, compiled: bool = False) -> Iterator[int]:
    held, model = splits(run), plain_model(run)
    inputs = held.train_images if compiled else held.train_images.contiguous()
    optimizer = plain_optimizer(run, model)
    if compiled:
        model = model.to(memory_format=torch.channels_last)

    def objective(pictures: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(model(pictures), labels)

    step = torch.compile(objective) if compiled else objective
    while True:
        for batch in torch.randperm(run.train_size).split(run.batch_size):
            optimizer.zero_grad()
            loss = step(inputs[batch], held.train_labels[batch])
            loss.backward()
            optimizer.step()
            yield len(batch)


def ours(run: Run) -> Iterator[int]:
    # A run without an end: probes and evaluations are what the other scripts do not have.
    run = run.model_copy(update={"steps": 10**9, "probes": 1})
    training = Training(run, splits(run))
    for batch in batches(run, CPU):
        training.advance(batch)
        yield len(batch)


def sgemm() -> Iterator[int]:
    a = torch.randn(MATRIX, MATRIX)
    while True:
        a @ a
        yield 2 * MATRIX**3


def script(name: str, run: Run, workers: int) -> Iterator[int]:
    match name:
        case "usual":
            return usual(run, workers)
        case "ours":
            return ours(run)
        case "sgemm":
            return sgemm()
    return tensors(run, compiled=name == "compiled")


# Processes that take turns


def work(pipe: Any, name: str, size: int, threads: int, workers: int) -> None:
    """A worker: warms up, then for each window that it is sent works and answers how much it did a second."""
    torch.set_num_threads(threads)
    start = time.perf_counter()
    turn = script(name, laptop_run(size), workers)
    next(turn)
    pipe.send(time.perf_counter() - start)
    for _ in range(20):
        next(turn)
    while True:
        window, start, done = pipe.recv(), time.perf_counter(), 0
        while time.perf_counter() - start < window:
            done += next(turn)
        pipe.send(done / (time.perf_counter() - start))


class Team:
    """The processes of one script that fill the machine together."""

    def __init__(self, name: str, size: int, processes: int, threads: int, workers: int = 0) -> None:
        self.name, self.size = name, size
        self.setup = f"{processes} × {threads} thread{'s' if threads > 1 else ''}"
        if name == "usual":
            self.setup += f", {workers} workers"
        for key, value in ALLOCATOR.items():  # what a process starts with
            os.environ.pop(key, None)
            if name in ("ours", "compiled"):
                os.environ[key] = value
        self.pipes, self.processes = [], []
        for _ in range(processes):
            mine, its = SPAWN.Pipe()
            self.processes.append(SPAWN.Process(target=work, args=(its, name, size, threads, workers)))
            self.processes[-1].start()
            its.close()
            self.pipes.append(mine)
        self.cold = max(self.answers())

    def window(self, seconds: float) -> float:
        """What all processes together do in a second."""
        for pipe in self.pipes:
            pipe.send(seconds)
        return sum(self.answers())

    def answers(self) -> list[float]:
        try:
            return [pipe.recv() for pipe in self.pipes]
        except EOFError:
            raise UserError(f"benchmark: the script '{self.name}' ended early; its message is above") from None

    def close(self) -> None:
        for process in self.processes:
            process.terminate()
            process.join()


def best_team(name: str, size: int, cores: int, window: float) -> Team:
    """The set-up of a script that is fastest here: processes × threads, and workers of its DataLoader."""
    setups = [(cores, 1, 0), (1, cores, 0)] if cores > 1 else [(1, 1, 0)]
    if name == "usual":
        setups += [(processes, threads, 2) for processes, threads, _ in setups]
    if name in ("ours", "compiled", "sgemm"):
        setups = setups[:1]
    if len(setups) == 1:
        return Team(name, size, *setups[0])
    speeds = {}
    for setup in setups:
        team = Team(name, size, *setup)
        speeds[setup] = team.window(window)
        print(f"{name} at {size}×{size}, {team.setup}: {speeds[setup]:,.0f} images/s", flush=True)
        team.close()
    return Team(name, size, *max(setups, key=lambda setup: speeds[setup]))


def speeds(cores: int, rounds: int, window: float) -> Result:
    """Images per second of each script at each size, and floating point operations per second of sgemm."""
    has_compiler = shutil.which("g++") is not None or shutil.which("clang++") is not None
    teams = [best_team("sgemm", SIZES[0], cores, window)]
    for size in SIZES:
        teams += [best_team(name, size, cores, window) for name in ("usual", "tensors", "ours")]
    if has_compiler:
        teams.append(best_team("compiled", SIZES[0], cores, window))
    measured: list[list[float]] = [[] for _ in teams]
    for number in range(rounds):
        for team, values in zip(teams, measured, strict=True):
            values.append(team.window(window))
        print(f"round {number + 1} of {rounds}", flush=True)
    for team in teams:
        team.close()
    limit = statistics.median(measured[0])
    rows = []
    for team, values in list(zip(teams, measured, strict=True))[1:]:
        speed = statistics.median(values)
        rows.append(
            {
                "script": team.name,
                "size": team.size,
                "setup": team.setup,
                "images_per_second": speed,
                "rounds": values,
                "share_of_sgemm": speed * image_operations(laptop_run(team.size)) / limit,
                "seconds_to_first_step": team.cold,
            }
        )
    return {"sgemm_gflops": limit / 1e9, "scripts": rows}


OPERATIONS = {
    "convolution": ("convolution",),
    "normalization": ("batch_norm",),
    "pooling and ReLU": ("max_pool", "clamp_min", "threshold"),
}


def step_shares(size: int) -> dict[str, float]:
    """The parts of a step's time that its operations take, forward and backward, by PyTorch's profiler."""
    turn = ours(laptop_run(size))
    for _ in range(20):
        next(turn)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(50):
            next(turn)
    events = profile.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    shares = {
        what: sum(event.self_cpu_time_total for event in events if any(part in event.key for part in parts)) / total
        for what, parts in OPERATIONS.items()
    }
    return {**shares, "everything else": 1 - sum(shares.values())}


# The same error


def test_error(name: str, seed: int, steps: int) -> float:
    """The test error of a script after some steps, by recomputed batch statistics."""
    run = laptop_run(SIZES[0], seed=seed, steps=steps, evaluations=1)
    held = splits(run)
    if name == "ours":
        return next(value for _, _, quantity, value in train(run, held).rows if quantity == "test_error")
    torch.manual_seed(seed)
    model = plain_model(run)
    for _, _ in zip(range(steps), usual_steps(run, 0, model), strict=False):
        pass
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None  # a cumulative mean
        for chunk in held.train_images[: run.statistics_size].split(512):
            model(chunk)
        model.eval()
        return float((model(held.test_images).argmax(1) != held.test_labels).double().mean())


def errors(seeds: list[int], steps: int) -> Result:
    """Test errors of both scripts after the same number of steps, by seed, and by how many deviations they differ."""
    with ProcessPoolExecutor(len(seeds), mp_context=SPAWN) as pool:
        found = {
            name: list(pool.map(test_error, [name] * len(seeds), seeds, [steps] * len(seeds)))
            for name in ("usual", "ours")
        }
    pooled = statistics.mean(statistics.variance(values) for values in found.values()) ** 0.5
    difference = statistics.mean(found["ours"]) - statistics.mean(found["usual"])
    return {**found, "steps": steps, "difference": difference, "seed_deviation": pooled}


# The workflow


def timed(command: list[str], folder: Path, **environment: str) -> tuple[float, float]:
    """Seconds and peak memory (MB) of a command, which must succeed."""
    start = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-c", LAUNCHER, *command],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seconds = time.perf_counter() - start
    if result.returncode:
        raise UserError(f"benchmark: `{' '.join(command)[:100]}` failed: {result.stdout[-500:]}")
    return seconds, int(result.stdout.split()[-1]) / 1024


def workflow(plans: list[int]) -> Result:
    """Planning by size of the grid, the start of a training, redrawing a figure, doing nothing."""
    snakemake = [sys.executable, "-m", "snakemake"]
    result: Result = {"plans": []}
    with tempfile.TemporaryDirectory(prefix="effective-lr-bench-") as scratch:
        copy = Path(scratch) / "repository"
        skip = shutil.ignore_patterns("__pycache__", ".*", "build", "results", "data")
        shutil.copytree(ROOT, copy, ignore=skip)
        for path in files_for(laptop_run(SIZES[0])):
            (copy / "results" / "data").mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy / "results" / "data")
        scales = copy / "config" / STUDY.name
        smoke = yaml.safe_load((scales / "smoke.yaml").read_text())
        for runs in plans:
            axes = {"lr": [0.001 * (1 + n) for n in range(runs // 80)], "l2": [0.001 * n for n in range(8)]}
            axes["seed"] = list(range(max(1, runs // 8 // len(axes["lr"] or [1]))))
            settings = {"normalization": "batch", "optimizer": "sgd", "affine_lr": 0.1, **axes}
            big = {"about": "a grid of this size, eight penalties in a shard", "grid": settings}
            content = {**smoke, "experiments": {**smoke["experiments"], "big": big}}
            (scales / f"plan{runs}.yaml").write_text(yaml.safe_dump(content))
            seconds, memory = timed([*snakemake, "--dry-run", "--quiet", "--config", f"scale=plan{runs}"], copy)
            result["plans"].append({"runs": runs, "seconds": seconds, "memory_mb": memory})
            print(f"planned {runs} runs in {seconds:.1f} s, {memory:.0f} MB", flush=True)
        figure = [*snakemake, "plane", "--cores", str(os.cpu_count()), "--config", "scale=smoke"]
        started = time.time()
        result["figure_from_raw_seconds"], _ = timed(figure, copy)
        finished = (copy / "results" / "smoke" / STUDY.name / "runs").glob("*.parquet")
        first = min(finished, key=lambda path: path.stat().st_mtime)
        result["first_step_seconds"] = first.stat().st_mtime - read_table(first)[1][0].seconds - started
        (copy / "paper" / "build" / "smoke" / STUDY.name / "plane.pdf").unlink()
        result["redraw_seconds"], _ = timed(figure, copy)
        result["nothing_to_do_seconds"], _ = timed(figure, copy)
    return result


def verdicts() -> Result | None:
    """Minutes of the last `make` in this folder, from its first training to the last verdict of all studies at laptop
    scale; None where it is not finished, or took runs from elsewhere."""
    results = ROOT / "results" / "laptop"
    shards = [read_provenance(path) for path in results.glob("*/shards/*.parquet")]
    claims = [path.stat().st_mtime for path in results.glob("*/claims/*.json")]
    records = [record for records in shards for record in records]
    chapters = load_chapters(ROOT, grid.load_config({"scale": "laptop"})).values()
    if len(claims) < sum(len(chapter.claims) for chapter in chapters) or any(record.reused for record in records):
        return None
    starts = [datetime.fromisoformat(record.finished).timestamp() - record.seconds for record in records]
    return {"minutes": (max(claims) - min(starts)) / 60, "trainings": len(records)}


def shard(runs: list[Run]) -> Result:
    """A training job by its command line: its time, what of it is training and evaluation, and its memory."""
    tensors, record = files_for(runs[0])
    with tempfile.TemporaryDirectory(prefix="effective-lr-bench-") as scratch:
        output = Path(scratch) / "shard.parquet"
        command = [sys.executable, "-m", "effective_lr", "train", "--study", STUDY.name, "--runs", grid.to_json(runs)]
        command += ["--code", "benchmark", "--tensors", str(tensors), "--record", str(record)]
        command += ["--cache", scratch, "--output", str(output)]
        seconds, memory = timed(command, ROOT, EFFECTIVE_LR_DEVICE="cpu", **ALLOCATOR)
        training = sum(record.seconds for record in read_table(output)[1])
    return {
        "runs": len(runs),
        "steps": runs[0].steps,
        "size": runs[0].resolution,
        "seconds": seconds,
        "other_seconds": seconds - training,
        "memory_mb": memory,
    }


def measure(quick: bool) -> Result:
    """Measure everything; `quick` tries the script itself, and its numbers mean nothing."""
    cores = os.cpu_count() or 1
    for size in SIZES:
        files_for(laptop_run(size))
    shapes = [(1, 250, 14), (2, 250, 14), (4, 250, 14), (1, 500, 14), (1, 1000, 14), (1, 250, 28)]
    steps = 20 if quick else 1000
    return {
        "machine": {
            "cpu": cpu_name(),
            "cores": cores,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "date": datetime.now(UTC).date().isoformat(),
            "commit": commit(),
            "quick": quick,
        },
        "speed": speeds(cores, rounds=1 if quick else ROUNDS, window=0.3 if quick else WINDOW),
        "step_shares": {str(size): step_shares(size) for size in SIZES},
        "errors": errors([100, 101], steps),
        "shard": shard([laptop_run(14, l2=0.001 * k, steps=steps) for k in range(8)]),
        "growth": [
            shard([laptop_run(size, steps=steps, l2=0.001 * k) for k in range(count)])
            for count, steps, size in (shapes[:1] if quick else shapes)
        ],
        "workflow": workflow(plans=[100] if quick else [100, 1_000, 10_000]),
        "verdicts": verdicts(),
    }


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def images_per_second(result: Result, name: str, size: int) -> float:
    return next(r["images_per_second"] for r in result["speed"]["scripts"] if (r["script"], r["size"]) == (name, size))


def targets(result: Result) -> list[Result]:
    """What was aimed at, and what was measured."""

    def ratio(name: str, size: int) -> float:
        return images_per_second(result, "ours", size) / images_per_second(result, name, size)

    errors, work = result["errors"], result["workflow"]
    plan = work["plans"][-1]
    rows = [
        *(
            (f"times {PLAIN_NAMES[name]}, {size}×{size}", ratio(name, size), factor, "at least")
            for name, size, factor in FACTORS
        ),
        (
            "difference in test error from the usual script, in deviations between seeds",
            abs(errors["difference"]) / errors["seed_deviation"],
            2.0,
            "at most",
        ),
        (
            "% of a job of 8 runs that is neither training nor evaluation",
            100 * result["shard"]["other_seconds"] / result["shard"]["seconds"],
            5.0,
            "at most",
        ),
        (f"seconds to plan {plan['runs']:,} runs", plan["seconds"], 10.0, "at most"),
        ("seconds to redraw a figure", work["redraw_seconds"], 4.0, "at most"),
        ("seconds of a run with nothing to do", work["nothing_to_do_seconds"], 2.0, "at most"),
    ]
    if result.get("verdicts"):
        minutes = result["verdicts"]["minutes"]
        rows.append(("minutes from nothing to all verdicts at laptop scale", minutes, 30.0, "at most"))
    return [
        {
            "what": what,
            "value": value,
            "target": target,
            "sense": sense,
            "met": (value >= target) == (sense[3:] == "least"),
        }
        for what, value, target, sense in rows
    ]


def draw(result: Result, output: Path) -> None:
    """Bars of images per second, and where the arithmetic alone would end."""
    import seaborn as sns

    from effective_lr.document import style

    style.use()
    plt = style.plt
    figure, axes = plt.subplots(1, len(SIZES), figsize=(9, 2.6), layout="constrained")
    for axis, size in zip(axes, SIZES, strict=True):
        rows = [row for row in result["speed"]["scripts"] if row["size"] == size]
        values = [row["images_per_second"] for row in rows]
        names = [SCRIPTS[row["script"]].replace(": ", ":\n") for row in rows]
        sns.barplot(x=values, y=names, ax=axis, orient="h", color="C0")
        for place, value in enumerate(values):
            label = f" {value:,.0f}  (×{value / images_per_second(result, 'usual', size):.1f})"
            axis.annotate(label, (value, place), va="center")
        bound = result["speed"]["sgemm_gflops"] * 1e9 / image_operations(laptop_run(size))
        axis.axvline(bound, color="C1", linestyle="--")
        corner: Result = {"xy": (bound, 0.04), "xycoords": axis.get_xaxis_transform(), "xytext": (-5, 0)}
        axis.annotate("sgemm alone", **corner, textcoords="offset points", ha="right", color="C1")
        axis.set(xlim=(0, 1.05 * bound), xlabel="training images per second", title=f"{size}×{size} pixels")
    axes[1].set_yticklabels([])
    figure.savefig(output, dpi=150)


def bound(result: Result, script: str, size: int, factor: float) -> str:
    """What stands between the measured speed and a factor over a script."""
    ours, theirs = (images_per_second(result, name, size) for name in ("ours", script))
    convolution = result["step_shares"][str(size)]["convolution"]
    left = ours / (factor * theirs) - convolution
    text = f"{factor:g} times {PLAIN_NAMES[script]} at {size}×{size} "
    if ours >= factor * theirs:
        return text + "is reached."
    if left <= 0:
        return text + "is out of reach: PyTorch's convolutions alone take longer."
    return text + (
        f"would need all that is not convolution, {100 * (1 - convolution):.0f} % of a step, "
        f"to fit into {100 * left:.0f} %."
    )


def page(result: Result) -> str:
    """The measurement as a page of documentation."""
    machine, speed, work, errors = (result[key] for key in ("machine", "speed", "workflow", "errors"))
    beside = [job["other_seconds"] for job in (*result["growth"], result["shard"])]
    lines = [
        "# Performance",
        "",
        f"Measured by `make bench` on {machine['date']}: {machine['cores']} cores of {machine['cpu']}, PyTorch "
        f"{machine['torch']}, Python {machine['python']}, commit {machine['commit']}. Medians of interleaved rounds.",
        "",
        "![Training images per second of each script](performance.png)",
        "",
        "| script | images | processes | images/s | relative | share of sgemm |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in speed["scripts"]:
        relative = row["images_per_second"] / images_per_second(result, "usual", row["size"])
        lines.append(
            f"| {SCRIPTS[row['script']]} | {row['size']}×{row['size']} | {row['setup']} | "
            f"{row['images_per_second']:,.0f} | {relative:.1f} | {100 * row['share_of_sgemm']:.0f} % |"
        )
    lines += ["", "| target | aimed at | measured | |", "| --- | --- | --- | --- |"]
    for row in targets(result):
        met = "met" if row["met"] else "**missed**"
        lines.append(f"| {row['what']} | {row['sense']} {row['target']:g} | {row['value']:.2g} | {met} |")
    lines += [
        "",
        f"The bound: large matrix products reach {speed['sgemm_gflops']:.0f} GFLOP/s on all cores together. Of the "
        "time of a step these are spent in",
        "",
        "| images | " + " | ".join(result["step_shares"]["14"]) + " |",
        "| --- " * (1 + len(result["step_shares"]["14"])) + "|",
        *(
            f"| {size}×{size} | " + " | ".join(f"{100 * share:.0f} %" for share in shares.values()) + " |"
            for size, shares in result["step_shares"].items()
        ),
        "",
        *(f"- {bound(result, *goal)}" for goal in FACTORS),
        f"- What a job does beside training is to start Python and PyTorch, and to read the data: {min(beside):.1f} to "
        f"{max(beside):.1f} s, whether it has one run or several.",
        f"- Of a redrawn figure Snakemake itself takes {work['nothing_to_do_seconds']:.1f} s, as where nothing is to "
        "be done; the rest is to start Python, to read the tables and to draw.",
        "",
        f"Test error after {errors['steps']} steps, by seed: "
        + "; ".join(f"{SCRIPTS[k]} {', '.join(f'{100 * e:.1f} %' for e in errors[k])}" for k in ("usual", "ours"))
        + ".",
        "",
        "| workflow | |",
        "| --- | --- |",
        *(f"| plan {p['runs']:,} runs | {p['seconds']:.1f} s, {p['memory_mb']:.0f} MB |" for p in work["plans"]),
        f"| from `snakemake` to the first training step | {work['first_step_seconds']:.1f} s |",
        f"| a training job, apart from training and evaluation | {result['shard']['other_seconds']:.1f} s |",
        f"| redraw one figure | {work['redraw_seconds']:.1f} s |",
        f"| nothing to do | {work['nothing_to_do_seconds']:.1f} s |",
        "",
        "| runs in a job | steps | images | seconds | memory |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {g['runs']} | {g['steps']} | {g['size']}×{g['size']} | {g['seconds']:.1f} | {g['memory_mb']:.0f} MB |"
            for g in result["growth"]
        ),
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure training speed and what the workflow adds to it.")
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure", help="measure, and write what was found as JSON")
    measuring.add_argument("--quick", action="store_true", help="try the script; the numbers mean nothing")
    for name in ("page", "figure"):
        commands.add_parser(name, help=f"a measurement as a {name}").add_argument("--input", type=Path, required=True)
    for command in commands.choices.values():
        command.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        if arguments.command == "measure":
            result = measure(arguments.quick)
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.write_text(json.dumps(result, indent=1) + "\n")
            print("\n" + page(result))
        elif arguments.command == "page":
            arguments.output.write_text(page(json.loads(arguments.input.read_text())))
        else:
            draw(json.loads(arguments.input.read_text()), arguments.output)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
