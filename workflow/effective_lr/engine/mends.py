"""Mends of Snakemake 9, which cost time and change no result.

Timers: its scheduler wakes itself once a second for every job that has finished. Whenever it looks for jobs and some
are ready, it starts a timer, which makes it look again. A finished job makes it look, too, and so adds a timer that
renews itself: after 300 jobs it looks 300 times a second.

Parameters: to see whether a parameter of a rule is a table of pandas, it imports pandas, which takes half a second in
every start. Where pandas is not imported yet, no parameter can be one.
"""

import sys
from threading import Timer
from typing import Any


def mend() -> None:
    """Let Snakemake's scheduler have one pending timer, and import pandas for no parameter.

    Does nothing where Snakemake has no such methods.
    """
    from snakemake.persistence import PersistenceBase  # type: ignore[import-untyped]
    from snakemake.scheduling.job_scheduler import JobScheduler  # type: ignore[import-untyped]

    if hasattr(JobScheduler, "_schedule_reevalutation"):
        JobScheduler._schedule_reevalutation = look_again
    if hasattr(PersistenceBase, "_serialize_param_pandas"):
        with_pandas, without = PersistenceBase._serialize_param_pandas, PersistenceBase._serialize_param_builtin
        PersistenceBase._serialize_param_pandas = lambda self, value: (
            with_pandas if "pandas" in sys.modules else without
        )(self, value)


def look_again(scheduler: Any, delay: float) -> None:
    """Wake the scheduler after `delay` seconds, unless it will be woken anyway."""

    def wake() -> None:
        scheduler.has_timer = False
        scheduler._open_jobs.release()

    if not getattr(scheduler, "has_timer", False):
        scheduler.has_timer = True
        Timer(delay, wake).start()
