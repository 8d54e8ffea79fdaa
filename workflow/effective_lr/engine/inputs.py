"""The studies at one scale, and where their files lie: what the rules of the workflow and the commands ask for.

Sources are found from the place of the repository, and what is made lies in the working directory. The Snakefile
imports this: nothing here imports torch or pandas.
"""

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from effective_lr.engine import code
from effective_lr.engine.contents import Chapter, Item, load_chapters, published_table
from effective_lr.engine.grid import Config, load_config
from effective_lr.engine.study import BaseRun, Study

DATA = Path("results", "data")


class DataFiles(NamedTuple):
    """A prepared dataset: its tensors, and the record of their content, by which a job checks them."""

    tensors: Path
    record: Path


def data_of(study: Study, run: BaseRun) -> DataFiles | None:
    """The prepared data of a run; None where it needs none."""
    name = study.data(run)
    return DataFiles(DATA / f"{name}.pt", DATA / f"{name}.json") if name else None


def recorded(data: tuple[Path, Path] | None, key: str) -> str:
    """The value of a key in the record of prepared data; empty where it cannot be read, which its reader reports."""
    try:
        return str(json.loads(data[1].read_text(encoding="utf-8")).get(key, "")) if data else ""
    except (OSError, ValueError, AttributeError):
        return ""


@dataclass(frozen=True)
class Layout:
    """The chapters of a scale by study, and their files."""

    root: Path  # of the repository
    config: Config
    chapters: dict[str, Chapter]

    @classmethod
    def load(cls, root: Path, study: str = "", /, **chosen: Any) -> "Layout":
        """By config/config.yaml and these keys, of one study or of all. Raises UserError with one sentence for each
        problem."""
        config = load_config(root, {key: value for key, value in chosen.items() if value not in (None, "")})
        return cls(root, config, load_chapters(root, config, study))

    @property
    def is_published(self) -> bool:
        return self.config.metrics == "published"

    @property
    def options(self) -> str:
        """What makes a command of Snakemake about this scale."""
        return f"--cores all --config scale={self.config.scale_name}{' metrics=published' if self.is_published else ''}"

    @property
    def build(self) -> Path:
        """The folder of the paper."""
        return Path("paper", "build", self.config.results)

    def results(self, study: str) -> Path:
        """The folder of a study: jobs/, logs/, runs/ (the run cache), claims.json."""
        return Path("results", self.config.results, study)

    def tables(self, study: str, experiments: Iterable[str] | None = None) -> list[Path]:
        """The tables of the jobs that these experiments of a study rest on, or all of its experiments. Published runs
        are in one table of the same form."""
        chapter = self.chapters[study]
        if self.is_published:
            return [self.published(study)]
        jobs = chapter.jobs if experiments is None else chapter.jobs_of(experiments)
        return [self.results(study) / "jobs" / f"{job}.parquet" for job in jobs]

    def tables_of(self, study: str, item: Item) -> list[Path]:
        """The tables of the jobs that an item rests on."""
        return self.tables(study, self.chapters[study].experiments_of(item))

    def checks(self, study: str) -> Path:
        """The table of float64 checks."""
        return (self.published(study).parent if self.is_published else self.results(study)) / "checks.parquet"

    def claims(self, study: str) -> Path:
        """The claims with their verdicts and numbers."""
        return self.results(study) / "claims.json"

    def rules(self, study: str) -> Path:
        """The claims.yaml that its verdicts are made by: a copy beside them, which travels with them and is new where
        that of the paper has changed, whatever Snakemake has recorded or lost."""
        source, copy = self.root / "paper" / study / "claims.yaml", self.results(study) / "claims.yaml"
        if not copy.exists() or copy.read_bytes() != source.read_bytes():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
        return copy

    def published(self, study: str) -> Path:
        """The table of the published runs of this scale, which need not exist."""
        return published_table(self.root, study, self.config.scale_name)

    def published_claims(self, study: str) -> Path:
        """What the published runs of this scale decide."""
        return self.published(study).with_suffix(".claims.json")

    def all_published_claims(self, study: str) -> dict[str, Path]:
        """The same for every published scale."""
        paths = sorted(self.published(study).parent.glob("*.claims.json"))
        return {path.name.removesuffix(".claims.json"): path for path in paths}

    def measured(self, item: Item) -> list[Path]:
        """The first file of an item that exists: in the repository, published or beside the paper, or measured here, in
        the working directory, and left out of what is published."""
        for name in item.file:
            is_own = not name.startswith(("results/published/", "paper/"))
            path = Path(name) if is_own else self.root / name
            if path.exists() and not (is_own and self.is_published):
                return [path]
        return []

    def all_tables(self) -> list[Path]:
        return [path for study in self.chapters for path in self.tables(study)]

    def notebook_data(self, study: str, name: str) -> DataFiles | None:
        """The prepared data that a notebook trains on."""
        chapter = self.chapters[study]
        experiment = chapter.contents.notebooks[name].data_of
        return data_of(chapter.study, chapter.experiments[experiment][0]) if experiment else None

    def notebook_parameters(self, study: str, name: str) -> str:
        """The values for its cell of parameters, as JSON."""
        found = {"scale": self.config.scale_name, "metrics": self.config.metrics}
        if data := self.notebook_data(study, name):
            found |= {"tensors": str(data.tensors), "record": str(data.record)}
        return json.dumps(found)

    def notebook_code(self, study: str, name: str) -> str:
        """A hash of what a notebook imports of the package, and of what executes it."""
        imported = code.imports(self.root / "notebooks" / study / f"{name}.py")
        own = [module.removeprefix("effective_lr.") for module in imported]
        return code.sources(["document.execute_notebooks", *own])
