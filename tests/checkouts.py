"""Copies of the repository, in which tests run Snakemake and edit what they like."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effective_lr.engine.contents import Chapter
from effective_lr.engine.inputs import Layout
from shared import ROOT

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
        made = shutil.ignore_patterns(".*", "__pycache__", "build", "data", "dist", "results")
        shutil.copytree(ROOT, root, ignore=made)
        shutil.copytree(ROOT / "results/published", root / "results/published")
        (root / "config/config.yaml").write_text("scale: smoke")
        return cls(root, stands_in)

    def copy(self, root: Path) -> "Checkout":
        return Checkout(Path(shutil.copytree(self.root, root, copy_function=linked_or_copied)), self.stands_in)

    def started(self, folder: Path | None = None, **variables: str) -> dict[str, Any]:
        """How a program is started here or in another folder, with both of its streams in stdout."""
        own = {"BASH_ENV": str(STAND_IN)} if self.stands_in else {}
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "SCALE")}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8", "errors": "replace"}
        return {"cwd": folder or self.root, "env": {**environment, **own, **variables}, **streams}

    def run(self, *command: str, folder: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, **self.started(folder, **variables))

    def start(self, *command: str, **variables: str) -> subprocess.Popen[str]:
        """The same in a process group of its own, without waiting for it."""
        return subprocess.Popen(command, **self.started(**variables), start_new_session=True)

    def make(self, *words: str) -> tuple[str, ...]:
        """The command `make`, where the environment is there."""
        (self.root / "workflow/setup.sh").write_text("")
        return ("make", *words, f"VENV={sys.prefix}")

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m effective_lr`."""
        return self.run(sys.executable, "-m", "effective_lr", *words, PYTHONPATH=str(self.root / "workflow"))

    def imports(self, *words: str) -> set[str]:
        """The packages that Python imports where it is called with these words."""
        done = self.run(sys.executable, "-X", "importtime", *words, PYTHONPATH=str(self.root / "workflow"))
        assert done.returncode == 0, done.stdout[-5000:]
        return set(re.findall(r"^import time:.*\| +(\S+)$", done.stdout, flags=re.MULTILINE))

    def snakemake(self, *words: str, broken: str = "", folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run it; `broken` names a command whose stand-in fails."""
        return self.run(sys.executable, "-m", "snakemake", *words, folder=folder, BROKEN=broken)

    def build(self, *words: str, cores: int = 1) -> None:
        result = self.snakemake(*words, "--cores", str(cores))
        assert result.returncode == 0, result.stdout[-5000:]

    def dry_run(self, *words: str, folder: Path | None = None) -> list[dict[str, str]]:
        """The jobs that it would run, each by what it prints: rule, input, output, priority, Shell command, ..."""
        options = ("--dry-run", "--printshellcmds", "--workflow-profile", "none")
        result = self.snakemake(*words, *options, folder=folder)
        assert result.returncode == 0, result.stdout[-5000:]
        printed = re.split(r"^(?:local)?rule (?=\w+:$)", result.stdout, flags=re.MULTILINE)[1:]
        assert ("Nothing to be done" in result.stdout) == (not printed)
        keys = re.compile(r"^(?:    )?(\w[\w ]*): (.*)$", re.MULTILINE)
        return [{"rule": text.partition(":")[0], **dict(keys.findall(text))} for text in printed]

    def planned(self, *words: str, folder: Path | None = None) -> Plan:
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


def plan_of(dry_run: list[dict[str, str]]) -> Plan:
    plan: Plan = {}
    for job in dry_run:
        values = re.findall(r"=([^,]+)", job.get("wildcards", ""))
        plan.setdefault(job["rule"], set()).add("/".join(values))
    return plan


def jobs_of(chapters: dict[str, Chapter], study: str = "", experiments: list[str] | None = None) -> set[str]:
    """<study>/<job> of the trainings of these experiments of a study, or of all."""
    return {
        f"{name}/{job}"
        for name, chapter in chapters.items()
        if study in ("", name)
        for job in chapter.jobs_of(chapter.experiments if experiments is None else experiments)
    }
