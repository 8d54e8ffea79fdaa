"""Copies of the repository, in which tests run Snakemake and edit what they like."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from effective_lr.engine.contents import Chapter
from effective_lr.engine.inputs import Layout
from shared import copy_repository

Plan = dict[str, set[str]]  # rule: the wildcards of its jobs, joined by slashes
STAND_IN = Path(__file__).parent / "workflow" / "stand_in.sh"


def linked_or_copied(source: str, target: str) -> None:
    """Tables and tensors, which are renamed into their place and never written there, have one copy on the disk."""
    (os.link if source.endswith((".parquet", ".pt")) else shutil.copy2)(source, target)


@dataclass
class Checkout:
    """A copy of the repository, whose config asks for the smoke scale; jobs are stand-ins where `stands_in`."""

    root: Path
    stands_in: bool = False

    @classmethod
    def new(cls, root: Path, stands_in: bool = False) -> "Checkout":
        copy_repository(root, {"scale": "smoke"})
        return cls(root, stands_in)

    def copy(self, root: Path) -> "Checkout":
        return Checkout(Path(shutil.copytree(self.root, root, copy_function=linked_or_copied)), self.stands_in)

    def run(self, *command: str, folder: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        if self.stands_in:
            variables["BASH_ENV"] = str(STAND_IN)
        return subprocess.run(
            command,
            cwd=folder or self.root,
            env={**environment, **variables},
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # LaTeX prints in Latin-1
        )

    def snakemake(self, *words: str, broken: str = "", folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run it; `broken` names a command whose stand-in fails."""
        return self.run(sys.executable, "-m", "snakemake", *words, folder=folder, BROKEN=broken)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m effective_lr`."""
        path = str(self.root / "workflow")
        return self.run(sys.executable, "-m", "effective_lr", *words, PYTHONPATH=path)

    def build(self, *words: str, cores: int = 1) -> None:
        result = self.snakemake(*words, "--cores", str(cores))
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]

    def dry_run(self, *words: str, folder: Path | None = None) -> str:
        """What it prints about each job that it would run, with the shell commands."""
        options = ("--dry-run", "--printshellcmds", "--workflow-profile", "none")
        result = self.snakemake(*words, *options, folder=folder)
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
        assert ("Nothing to be done" in result.stdout) == (not jobs_in(result.stdout))
        return result.stdout

    def planned(self, *words: str, folder: Path | None = None) -> Plan:
        """The jobs of a dry run."""
        return plan_of(self.dry_run(*words, folder=folder))

    def edit(self, path: str, old: str, new: str, times: int = 1) -> None:
        text = (self.root / path).read_text()
        assert text.count(old) == times, f"{path}: {old}"
        (self.root / path).write_text(text.replace(old, new))

    def append(self, path: str, text: str) -> None:
        with (self.root / path).open("a") as file:
            file.write(text)

    def layout(self, **chosen: str) -> Layout:
        """Its studies at a scale, and their files; a folder config/ there goes before that of the repository."""
        with contextlib.chdir(self.root):
            return Layout.load(self.root, **chosen)

    def chapters(self, scale: str = "smoke") -> dict[str, Chapter]:
        return self.layout(scale=scale).chapters

    def config(self, **chosen: object) -> None:
        """Choose these keys in config/config.yaml."""
        (self.root / "config/config.yaml").write_text(json.dumps(chosen))


def jobs_in(dry_run: str) -> list[str]:
    """What a dry run prints about each job."""
    return re.split(r"^(?:local)?rule ", dry_run, flags=re.MULTILINE)[1:]


def reasons_of(dry_run: str) -> dict[str, str]:
    """Why each rule is planned."""
    reasons = {
        job.partition(":")[0]: re.findall(r"^    reason: (.*)$", job, flags=re.MULTILINE) for job in jobs_in(dry_run)
    }
    return {rule: " ".join(found) for rule, found in reasons.items()}


def plan_of(dry_run: str) -> Plan:
    plan: Plan = {}
    for job in jobs_in(dry_run):
        wildcards = re.search(r"^    wildcards: (.*)$", job, flags=re.MULTILINE)
        values = re.findall(r"=([^,]+)", wildcards[1]) if wildcards else []
        plan.setdefault(job.partition(":")[0], set()).add("/".join(values))
    return plan


def jobs_of(chapters: dict[str, Chapter], study: str = "", experiments: list[str] | None = None) -> set[str]:
    """<study>/<job> of the trainings of these experiments of a study, or of all."""
    chosen = {name: chapter for name, chapter in chapters.items() if study in ("", name)}
    return {
        f"{name}/{job}"
        for name, chapter in chosen.items()
        for job in chapter.jobs_of(chapter.experiments if experiments is None else experiments)
    }


def listed_jobs(dry_run: str, target: str) -> set[str]:
    """<study>/<job> among the inputs of a target."""
    inputs = re.search(rf"^(?:local)?rule {target}:\n    input: (.*)$", dry_run, flags=re.MULTILINE)
    assert inputs, target
    return {f"{study}/{job}" for study, job in re.findall(r"(\w+)/jobs/([^,\s]+)\.parquet", inputs[1])}
