"""What runs cost: their arithmetic, the time that follows from a speed, and what a job asks of a scheduler.

Imported by the Snakefile: nothing here imports torch.
"""

import math
from collections.abc import Iterable

from effective_lr.config import DATASETS, Run

Speed = tuple[float, float]  # seconds for a step, seconds for an evaluated image

FORWARD_SHARE = 1 / 3  # of the arithmetic of a training image, what an evaluated image needs: no backward pass
CPU_SPEED = 3e10  # floating point operations per second of one core, as the published study had them
GPU_SPEED = 1e13  # a sixth of what an H100 is sold for, in float32 without TF32; a guess, no GPU was measured
SAFETY = 4  # how much slower a machine may be before a scheduler stops a job, which then goes on from a checkpoint
LONGEST_MINUTES = 24 * 60  # that partitions usually allow; what is left then goes on in the next attempt
START_MINUTES = 10  # to find a node, start Python there and read the data
PROCESS_MEGABYTES = 1500  # a training process held up to 1.2 GB (docs/performance.md), most of it PyTorch


def run_seconds(run: Run, speed: Speed) -> float:
    """The time that a run takes at this speed."""
    statistics = run.statistics_size if run.normalization == "batch" and run.batch_statistics == "recomputed" else 0
    evaluated = run.evaluations * (run.validation_size + run.test_size + statistics)
    return run.steps * speed[0] + evaluated * speed[1]


def operations(run: Run) -> int:
    """Floating point operations of a training image: forward, and as much again for each of both gradients."""
    side, width = run.resolution, run.width
    first = 9 * DATASETS[run.dataset].channels * width * side**2
    others = 9 * width * 2 * width * (side // 2) ** 2 + 9 * 2 * width * 4 * width * (side // 4) ** 2
    others += 4 * width * 10  # classes
    return 2 * (3 * (first + others) - first)  # nobody asks for the gradient of the images


def total_operations(runs: Iterable[Run]) -> float:
    """Floating point operations of whole runs, evaluations included."""
    return sum(run_seconds(run, (run.batch_size, FORWARD_SHARE)) * operations(run) for run in runs)


def time_limit(runs: Iterable[Run], is_gpu: bool, attempt: int = 1) -> int:
    """Minutes that a training job asks for: several times what its runs should take, and more at each attempt."""
    seconds = total_operations(runs) / (GPU_SPEED if is_gpu else CPU_SPEED)
    return min(attempt * (START_MINUTES + math.ceil(SAFETY * seconds / 60)), LONGEST_MINUTES)


def memory_limit(run: Run, attempt: int = 1) -> int:
    """Megabytes that a training job asks for, on the host: PyTorch, and the data with the copies made in reading it."""
    facts = DATASETS[run.dataset]
    images = 4 * facts.channels * run.resolution**2 * (facts.train + facts.test)
    return attempt * (PROCESS_MEGABYTES + math.ceil(4 * images / 1e6))
