"""What each kind of job imports: most jobs do a second of work, and a library costs up to three to start."""

import re
import sys
from pathlib import Path

from checkouts import Checkout

# Runs commands in one process, and prints what they imported.
IMPORTED = """
import sys
from effective_lr.__main__ import main
for words in sys.argv[1:]:
    if main(words.split()):
        sys.exit(1)
print("imported:", *(name for name in sys.modules if name in {names}))
"""
HEAVY = {"matplotlib", "pandas", "scipy.stats", "seaborn", "sklearn", "statsmodels", "torch"}


def imported(checkout: Checkout, *commands: str) -> set[str]:
    """The heavy libraries that these commands import."""
    program = IMPORTED.format(names=HEAVY)
    done = checkout.run(sys.executable, "-c", program, *commands, PYTHONPATH=str(checkout.root / "workflow"))
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_jobs_import_what_they_need(smoke: Checkout, tmp_path: Path) -> None:
    checkout = smoke.copy(tmp_path / "copy")
    chapters = checkout.chapters()
    assert imported(checkout, *(f"chapter --study {study}" for study in chapters)) == {"pandas"}
    figures = [
        f"figure --study {study} --name {name} --output figure.pdf"
        for study, chapter in chapters.items()
        for name in chapter.contents.figures
    ]
    assert imported(checkout, *figures) <= HEAVY - {"torch", "statsmodels", "scipy.stats", "sklearn"}
    jobs = [
        f"train --study {study} --job {next(iter(chapter.jobs))} --output job.parquet"
        for study, chapter in chapters.items()
    ]
    assert imported(checkout, *jobs) == set()  # they find their runs finished
    assert imported(checkout, "paper") <= {"pandas"}


def test_a_snakefile_is_read_without_libraries(untouched: Checkout) -> None:
    """Every job on a cluster reads it again."""
    snakemake = ("-m", "snakemake", "--dry-run", "--quiet")
    done = untouched.run(sys.executable, "-X", "importtime", *snakemake)
    modules = set(re.findall(r"\| +(\S+)$", done.stderr, flags=re.MULTILINE))
    assert done.returncode == 0 and "effective_lr.engine.grid" in modules
    assert modules & HEAVY == set()
