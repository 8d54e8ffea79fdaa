"""The studies at one scale, and where their files lie: what the rules of the workflow and the commands ask for.

Sources are found from the place of the repository, and what is made lies in the working directory. So the workflow runs
with `snakemake -s .../Snakefile --directory elsewhere`, and as a module of another one. The Snakefile imports this:
nothing here imports torch or pandas.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from effective_lr.engine import code, resources
from effective_lr.engine.contents import Chapter, Item, Notebook, load_chapters, published_scales, published_table
from effective_lr.engine.grid import Config, load_config

DATA = Path("results", "data")


class DataFiles(NamedTuple):
    """A prepared dataset: its tensors, and the record of their content, by which a job checks them."""

    tensors: Path
    record: Path


def data_files(name: str) -> DataFiles:
    return DataFiles(DATA / f"{name}.pt", DATA / f"{name}.json")


@dataclass(frozen=True)
class Layout:
    """The chapters of a scale by study, and their files."""

    root: Path  # of the repository
    config: Config
    chapters: dict[str, Chapter]

    @classmethod
    def load(cls, root: Path, **chosen: Any) -> "Layout":
        """By config/config.yaml and these keys. Raises UserError with one sentence for each problem."""
        config = load_config(root, {key: value for key, value in chosen.items() if value not in (None, "")})
        return cls(root, config, load_chapters(root, config))

    @property
    def is_published(self) -> bool:
        return self.config.metrics == "published"

    @property
    def build(self) -> Path:
        """The folder of the paper."""
        return Path("paper", "build", self.config.results)

    def results(self, study: str) -> Path:
        """The folder of a study: jobs/, logs/, runs/ (the run cache), claims.json."""
        return Path("results", self.config.results, study)

    def job_table(self, study: str, job: str) -> Path:
        """What the runs of a training job measured."""
        return self.results(study) / "jobs" / f"{job}.parquet"

    def tables(self, study: str, experiments: Iterable[str] | None = None) -> list[Path]:
        """The tables of the jobs that these experiments of a study rest on, or all of its experiments. Published runs
        are in one table of the same form."""
        chapter = self.chapters[study]
        if self.is_published:
            return [published_table(self.root, study, self.config.scale_name)]
        jobs = chapter.jobs if experiments is None else chapter.jobs_of(experiments)
        return [self.job_table(study, job) for job in jobs]

    def tables_of(self, study: str, item: Item | Notebook) -> list[Path]:
        """The tables of the jobs that an item rests on."""
        return self.tables(study, self.chapters[study].experiments_of(item))

    def checks(self, study: str) -> Path:
        """The table of float64 checks."""
        if self.is_published:
            return published_table(self.root, study, self.config.scale_name).with_name("checks.parquet")
        return self.results(study) / "checks.parquet"

    def claims(self, study: str) -> Path:
        """The claims with their verdicts and numbers."""
        return self.results(study) / "claims.json"

    def published_claims(self, study: str) -> dict[str, Path]:
        """Those of published scales, by scale."""
        paths = {
            scale: published_table(self.root, study, scale).with_suffix(".claims.json")
            for scale in published_scales(self.root, study)
        }
        return {scale: path for scale, path in paths.items() if path.exists()}

    def measured(self, item: Item) -> list[Path]:
        """The first file of an item that exists. Published ones are in the repository; measured here, in the working
        directory, and left out of what is published."""
        places = [
            self.root / name if name.startswith("results/published/") else Path(name)
            for name in item.files
            if name.startswith("results/published/") or not self.is_published
        ]
        return [path for path in places if path.exists()][:1]

    def measured_files(self, study: str) -> list[Path]:
        """The files of all items of a study."""
        return list(dict.fromkeys(path for item in self.items(study).values() for path in self.measured(item)))

    def all_tables(self) -> list[Path]:
        return [path for study in self.chapters for path in self.tables(study)]

    def items(self, study: str, kind: str = "") -> dict[str, Item]:
        """The figures, the tables, or both of a study."""
        contents = self.chapters[study].contents
        return {**(contents.figures if kind != "table" else {}), **(contents.tables if kind != "figure" else {})}

    # Training jobs

    def is_optional(self, dataset: str) -> bool:
        """Whether a study goes without this prepared data where a user lacks it."""
        return any(dataset in chapter.study.optional_data for chapter in self.chapters.values())

    def data_of_job(self, study: str, job: str) -> str | None:
        """The prepared data of a training job."""
        chapter = self.chapters[study]
        name: str | None = chapter.study.data(chapter.jobs[job][0])
        return name

    def minutes(self, study: str, job: str, attempt: int = 1) -> int:
        """The time that a job asks a scheduler for."""
        chapter, is_gpu = self.chapters[study], self.config.device == "cuda"
        return resources.time_limit(chapter.study, chapter.jobs[job], is_gpu, attempt)

    def megabytes(self, study: str, job: str, attempt: int = 1) -> int:
        """The memory that a job asks a scheduler for."""
        chapter = self.chapters[study]
        return max(resources.memory_limit(chapter.study, run, attempt) for run in chapter.jobs[job])

    # Notebooks

    def notebook(self, study: str, name: str) -> Notebook:
        return self.chapters[study].contents.notebooks[name]

    def notebook_data(self, study: str, name: str) -> str | None:
        """The prepared data that a notebook trains on."""
        chapter, experiment = self.chapters[study], self.notebook(study, name).data_of
        return chapter.study.data(chapter.experiments[experiment][0]) if experiment else None

    def notebook_inputs(self, study: str, name: str) -> list[Path]:
        """The tables of the jobs that a notebook reads, and the verdicts where it reads all of them."""
        one = self.notebook(study, name)
        verdicts = [self.claims(study)] if one.experiments == "all" else []
        return [*self.tables_of(study, one), *verdicts] if one.experiments else []

    def notebook_parameters(self, study: str, name: str) -> str:
        """The values for its cell of parameters, as JSON."""
        found = {"scale": self.config.scale_name, "metrics": self.config.metrics}
        if data := self.notebook_data(study, name):
            found |= {"tensors": str(data_files(data).tensors), "record": str(data_files(data).record)}
        return json.dumps(found)

    def notebook_code(self, study: str, name: str) -> str:
        """A hash of what a notebook imports of the package, and of what executes it."""
        imported = code.imports(self.root / "notebooks" / study / f"{name}.py")
        return code.sources_of(["effective_lr.document.execute_notebooks", *imported])
