"""Snakemake's scheduler has one timer, however many jobs have finished, and a start does not import pandas."""

import subprocess
import sys
import time
from threading import Semaphore
from types import SimpleNamespace

from snakemake.persistence import PersistenceBase  # type: ignore[import-untyped]
from snakemake.scheduling.job_scheduler import JobScheduler  # type: ignore[import-untyped]

from effective_lr.engine import mends


def test_there_is_one_timer_at_a_time_and_another_after_it() -> None:
    scheduler = SimpleNamespace(_open_jobs=Semaphore(0))
    for _ in range(2):
        for _ in range(10):
            mends.look_again(scheduler, 0.01)
        assert scheduler._open_jobs.acquire(timeout=5)
        time.sleep(0.1)
        assert not scheduler._open_jobs.acquire(blocking=False), "a second timer woke the scheduler"


def test_snakemake_has_the_methods_that_are_mended() -> None:
    """Where a new Snakemake has them no more, the mend is to be removed."""
    assert hasattr(JobScheduler, "_schedule_reevalutation")
    assert hasattr(PersistenceBase, "_serialize_param_pandas")


def test_parameters_are_written_without_pandas_until_one_can_be_a_table() -> None:
    script = """
import sys
from types import SimpleNamespace
from effective_lr.engine import mends
from snakemake.persistence import PersistenceBase
mends.mend()
base = SimpleNamespace(_serialize_param_builtin=lambda value: PersistenceBase._serialize_param_builtin(base, value))
assert PersistenceBase._serialize_param_pandas(base, {"lr": 0.1}) == repr({"lr": 0.1})
assert "pandas" not in sys.modules
import pandas
one, other = pandas.DataFrame({"lr": [0.1]}), pandas.DataFrame({"lr": [0.2]})
assert len({str(PersistenceBase._serialize_param_pandas(base, table)) for table in (one, one.copy(), other)}) == 2
"""
    subprocess.run([sys.executable, "-c", script], check=True)
