"""Which device a training job uses, and on a GPU a lease on one of its slots, held by a file lock.

Snakemake's `resources: gpu` only counts jobs. The lease gives each job a device of its own, or one of the slots into
which several jobs share it. The kernel frees the lock when its holder ends, however it ends.
"""

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from effective_lr.errors import UserError, reason

if TYPE_CHECKING:  # a job that finds all its runs finished never imports torch
    import torch

POLL = 0.5  # seconds between looks for a free slot


def visible_devices(count: int) -> list[str]:
    """The names of the `count` devices that CUDA shows to this process, as CUDA_VISIBLE_DEVICES has them."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(index) for index in range(count)] if listed is None else listed.split(",")
    return [name.strip().replace("/", "-") for name in names][:count]  # CUDA stops at the first that does not exist


@contextmanager
def lease(devices: Sequence[str], slots: int, folder: Path) -> Iterator[int]:
    """Wait for a free slot of a device and hold it; gives the index of the device in `devices`.

    All devices get one job before any gets two.
    """
    folder.mkdir(parents=True, exist_ok=True)
    places = [(index, folder / f"{name}.{slot}.lock") for slot in range(slots) for index, name in enumerate(devices)]
    printed = False
    while True:
        for index, path in places:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            except OSError as error:  # a disk without locks: nothing counts the jobs on a device
                print(f"{path}: cannot be locked ({reason(error)}); more than {slots} jobs may share a GPU", flush=True)
            try:
                yield index
                return
            finally:
                os.close(lock)  # frees it; the file stays, or a waiting job would hold the lock of a deleted one
        if not printed:
            print(f"waiting for a slot of GPU {', '.join(devices)} ({slots} each)", flush=True)
            printed = True
        time.sleep(POLL)


@contextmanager
def on_device(name: str, slots: int, job: str) -> Iterator["torch.device"]:
    """The CPU or a GPU, as the config asks; of a GPU a slot is held meanwhile. Raises UserError when there is none, or
    its memory is full."""
    import torch

    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise UserError("config: device = 'cuda': no CUDA device is visible here; use device=auto or device=cpu")
    if name == "cpu" or not has_gpu:
        yield torch.device("cpu")
        return
    devices = visible_devices(torch.cuda.device_count())
    # On the local disk, since network file systems may ignore locks.
    with lease(devices, slots, Path(tempfile.gettempdir()) / f"effective-lr-gpus-{os.getuid()}") as index:
        torch.cuda.set_device(index)
        try:
            yield torch.device("cuda", index)
        except torch.OutOfMemoryError:
            advice = f"try --config gpu_slots={slots - 1}" if slots > 1 else "use --config device=cpu"
            raise UserError(
                f"{job}: out of memory on GPU {devices[index]} with gpu_slots = {slots}; {advice}"
            ) from None
