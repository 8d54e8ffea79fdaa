"""What each kind of job imports: most jobs do a second of work, and a library costs up to three to start."""

import re
import sys
from pathlib import Path

from checkouts import Checkout

HEAVY = {"matplotlib", "pandas", "scipy.stats", "seaborn", "sklearn", "statsmodels", "torch"}
# Runs commands in one process, and prints what each of them imported first.
PROGRAM = f"""
import sys
from effective_lr.__main__ import main
for words in sys.argv[1:]:
    before = set(sys.modules)
    if main(words.split()):
        sys.exit(1)
    print("imported:", *(set(sys.modules) - before) & {HEAVY})
"""


def imported(checkout: Checkout, *commands: str) -> dict[str, set[str]]:
    """The heavy libraries that each of these commands imports, where one before it did not."""
    path = str(checkout.root / "workflow")
    done = checkout.run(sys.executable, "-c", PROGRAM, *commands, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    libraries = re.findall(r"^imported:(.*)$", done.stdout, flags=re.MULTILINE)
    found = {words: set(names.split()) for words, names in zip(commands, libraries, strict=True)}
    return {words: names for words, names in found.items() if names}


def test_jobs_import_what_they_need(smoke: Checkout, tmp_path: Path) -> None:
    checkout = smoke.copy(tmp_path / "copy")
    chapters = checkout.chapters()
    figures = [
        f"figure --study {study} --name {name} --output x.pdf"
        for study, chapter in chapters.items()
        for name in chapter.contents.figures
    ]
    jobs = [(study, next(iter(chapter.jobs))) for study, chapter in chapters.items()]
    for allowed, commands in [
        ({"pandas"}, [*(f"chapter --study {study}" for study in chapters), "paper"]),
        ({"pandas", "matplotlib", "seaborn"}, ["verdicts --output x.pdf", *figures]),
        # All runs are in the run cache.
        ({"pandas"}, [f"train --study {study} --job {job} --output x.parquet" for study, job in jobs]),
    ]:
        for words, libraries in imported(checkout, *commands).items():
            assert libraries <= allowed, words


def test_a_snakefile_is_read_without_libraries(untouched: Checkout) -> None:
    """Every job on a cluster reads it again."""
    snakemake = ("-m", "snakemake", "--dry-run", "--quiet")
    done = untouched.run(sys.executable, "-X", "importtime", *snakemake)
    modules = set(re.findall(r"\| +(\S+)$", done.stderr, flags=re.MULTILINE))
    assert done.returncode == 0 and "effective_lr.engine.grid" in modules
    assert modules & HEAVY == set()
