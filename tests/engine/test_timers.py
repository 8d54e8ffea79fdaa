"""Snakemake's scheduler has one timer, however many jobs have finished."""

import time
from threading import Semaphore
from types import SimpleNamespace

from snakemake.scheduling.job_scheduler import JobScheduler  # type: ignore[import-untyped]

from effective_lr.engine import timers


def test_there_is_one_timer_at_a_time_and_another_after_it() -> None:
    scheduler = SimpleNamespace(_open_jobs=Semaphore(0))
    for _ in range(2):
        for _ in range(10):
            timers.look_again(scheduler, 0.01)
        assert scheduler._open_jobs.acquire(timeout=5)
        time.sleep(0.1)
        assert not scheduler._open_jobs.acquire(blocking=False), "a second timer woke the scheduler"


def test_snakemake_has_the_method_that_is_mended() -> None:
    """Where a new Snakemake has it no more, the mend is to be removed."""
    assert hasattr(JobScheduler, "_schedule_reevalutation")
