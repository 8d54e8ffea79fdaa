"""A mend of Snakemake 9: its scheduler wakes itself once a second, not once a second for every job that has finished.

Whenever the scheduler looks for jobs and some are ready, it starts a timer, which makes it look again. A finished job
makes it look, too, and so adds a timer that renews itself: after 300 jobs it looks 300 times a second.
"""

from threading import Timer
from typing import Any


def keep_one() -> None:
    """Let Snakemake's scheduler have one pending timer. Does nothing where Snakemake has no such method."""
    from snakemake.scheduling.job_scheduler import JobScheduler  # type: ignore[import-untyped]

    if hasattr(JobScheduler, "_schedule_reevalutation"):
        JobScheduler._schedule_reevalutation = look_again


def look_again(scheduler: Any, delay: float) -> None:
    """Wake the scheduler after `delay` seconds, unless it will be woken anyway."""

    def wake() -> None:
        scheduler.has_timer = False
        scheduler._open_jobs.release()

    if not getattr(scheduler, "has_timer", False):
        scheduler.has_timer = True
        Timer(delay, wake).start()
