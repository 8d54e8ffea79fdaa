"""What a training job asks of a scheduler, from the arithmetic of its runs. Imported by the Snakefile."""

import math
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from effective_lr.engine.study import BaseRun, Study

CPU_SPEED = 3e10  # floating point operations per second of one core, as the first published study had them
GPU_SPEED = 1e13  # a sixth of what an H100 is sold for, in float32 without TF32; a guess, no GPU was measured
SAFETY = 4  # how much slower a machine may be before a scheduler stops a job, which then resumes from a checkpoint
LONGEST_MINUTES = 24 * 60  # that partitions usually allow; the next attempt does what is left
START_MINUTES = 10  # to find a node, start Python there and read the data
PROCESS_MEGABYTES = 1500  # a training process held up to 1.2 GB, most of it PyTorch


def time_limit(study: Study, runs: Iterable[BaseRun], attempt: int = 1, is_gpu: bool = False) -> int:
    """Minutes that a training job asks for: several times what its runs should take, and more at each attempt."""
    seconds = sum(map(study.operations, runs)) / (GPU_SPEED if is_gpu else CPU_SPEED)
    return min(attempt * (START_MINUTES + math.ceil(SAFETY * seconds / 60)), LONGEST_MINUTES)


def memory_limit(study: Study, runs: Iterable[BaseRun], attempt: int = 1) -> int:
    """Megabytes that a training job asks for, on the host: PyTorch, and what its largest run needs beside it."""
    return attempt * (PROCESS_MEGABYTES + max(map(study.megabytes, runs)))


def available_megabytes(system: Path = Path("/")) -> int:
    """The memory of this machine, or what a control group of this process allows of it: less, in a container."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError):
        for line in (system / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, kinds, own = line.split(":", 2)
            root = system / "sys/fs/cgroup" / kinds  # of version 2, whose kinds are empty, or of version 1
            for group in (root / own.strip("/"), *(root / own.strip("/")).parents):
                for name in ("memory.max", "memory.limit_in_bytes"):
                    with suppress(OSError, ValueError):  # no such file, or "max"
                        found.append(int((group / name).read_text(encoding="utf-8")))
    return min(found) // 2**20
