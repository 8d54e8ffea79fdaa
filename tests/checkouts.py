"""Copies of the repository, in which tests run Snakemake and edit what they like."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from effective_lr.engine import contents, grid
from effective_lr.engine.contents import Chapter
from shared import ROOT, copy_repository

Plan = dict[str, set[str]]  # rule: the wildcards of its jobs, joined by slashes


@dataclass
class Checkout:
    """A copy of the repository, whose config asks for the smoke scale."""

    root: Path

    @classmethod
    def new(cls, root: Path) -> "Checkout":
        copy = cls(copy_repository(root, {"scale": "smoke"}))
        known = Path(".snakemake/code.json")  # what `snakemake --lint` read of the same code: each start saves seconds
        if (ROOT / known).exists():
            (root / known).parent.mkdir()
            shutil.copy(ROOT / known, root / known)
        return copy

    def copy(self, root: Path) -> "Checkout":
        return Checkout(Path(shutil.copytree(self.root, root)))

    def snakemake(self, *words: str, broken: str = "", folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run it; `broken` names a command whose stand-in fails."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            [sys.executable, "-m", "snakemake", *words],
            cwd=folder or self.root,
            env={**environment, "BROKEN": broken},
            capture_output=True,
            text=True,
        )

    def build(self, *words: str, cores: int = 1) -> None:
        result = self.snakemake(*words, "--cores", str(cores))
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]

    def planned(self, *words: str, folder: Path | None = None) -> Plan:
        """The jobs of a dry run."""
        result = self.snakemake(*words, "--dry-run", "--workflow-profile", "none", folder=folder)
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
        plan: Plan = {}
        for block in re.split(r"^(?:local)?rule ", result.stdout, flags=re.MULTILINE)[1:]:
            wildcards = re.search(r"^    wildcards: (.*)$", block, flags=re.MULTILINE)
            values = re.findall(r"=([^,]+)", wildcards[1]) if wildcards else []
            plan.setdefault(block.partition(":")[0], set()).add("/".join(values))
        assert ("Nothing to be done" in result.stdout) == (not plan)
        return plan

    def edit(self, path: str, old: str, new: str, times: int = 1) -> None:
        text = (self.root / path).read_text()
        assert text.count(old) == times
        (self.root / path).write_text(text.replace(old, new))

    def append(self, path: str, text: str) -> None:
        with (self.root / path).open("a") as file:
            file.write(text)

    def chapters(self, scale: str = "smoke", metrics: str = "recompute") -> dict[str, Chapter]:
        """Its studies at a scale."""
        with contextlib.chdir(self.root):  # a folder config/ there goes before that of the repository
            return contents.load_chapters(self.root, grid.load_config({"scale": scale, "metrics": metrics}))

    def shards(self, study: str = "", *experiments: str) -> set[str]:
        """<study>/<shard> of these experiments of a study, or of all."""
        found = set()
        for name, chapter in self.chapters().items():
            if study in ("", name):
                runs = chapter.runs_of(list(experiments or chapter.experiments))
                found |= {f"{name}/{shard}" for shard in grid.shards(runs)}
        return found


def listed_shards(plan: str, target: str) -> set[str]:
    """<study>/<shard> among the inputs of a target in the text of a dry run."""
    inputs = re.search(rf"^(?:local)?rule {target}:\n    input: (.*)$", plan, flags=re.MULTILINE)
    assert inputs, target
    return {f"{study}/{shard}" for study, shard in re.findall(r"(\w+)/shards/([^,\s]+)\.parquet", inputs[1])}
