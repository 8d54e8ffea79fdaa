"""What a study shows and claims, and the runs of one scale that this rests on: contents.yaml, claims.yaml, config.

The Snakefile imports it: nothing here imports torch or pandas.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, RootModel, model_validator

from effective_lr.engine import grid
from effective_lr.engine.grid import Config, Experiments, Scale
from effective_lr.engine.study import BaseRun, Study, load, names
from effective_lr.engine.validation import checked, read_yaml
from effective_lr.errors import UserError

Names = Annotated[list[str], BeforeValidator(lambda names: [names] if isinstance(names, str) else names)]  # or one
COMMON_TABLES = ("verdicts", "verdicts_by_scale", "settings", "costs")  # of any study


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class Item(_Strict):
    """A figure or a table: the function of its name in the study's figures.py or tables.py makes it."""

    title: str
    experiments: Names = []  # whose runs it shows, or `all`
    claims: Names = []  # whose verdicts and numbers it shows, or `all`
    file: Names = []  # in JSON, which it shows: of several, the first found
    caption: str  # LaTeX; states the prediction


class Notebook(_Strict):
    """A notebook, notebooks/<study>/<name>.py, which may read all tables and claims of its study."""

    title: str
    data_of: str | None = None  # the experiment whose prepared data it trains on


class Contents(_Strict):
    """What a study shows: paper/<study>/contents.yaml."""

    order: int  # of the chapter in the paper
    figures: dict[str, Item] = {}
    tables: dict[str, Item] = {}
    notebooks: dict[str, Notebook] = {}
    first_view: str | None = None  # the figure whose experiments the explorer opens the study with

    @property
    def shown(self) -> dict[str, Item]:
        """The figures and the tables."""
        return {**self.figures, **self.tables}


class Measurement(_Strict):
    """A statistic of the study's statistics.py, or a float64 check of its checks.py, for one subject."""

    subject: str
    statistic: str = ""
    check: str = ""
    unit: str = ""
    one_seed: bool = False  # has an interval with one seed, too, over other repetitions

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if bool(self.statistic) == bool(self.check):
            raise ValueError(f"subject = '{self.subject}': expected either a statistic or a check; name one of them")
        return self

    @property
    def name(self) -> str:
        """Of the statistic or the check."""
        return self.statistic or self.check


class Planned(_Strict):
    """How the number of seeds was chosen before they were trained: the power of the test at the value and with the
    deviation between seeds that earlier ones had, on the scale of the mean: `log` for a geometric mean."""

    seeds: int
    deviation: float
    expected: float
    power: float
    log: bool = False


def _rises(within: tuple[float, float]) -> tuple[float, float]:
    if within[0] > within[1]:
        raise ValueError(f"within = {list(within)}: the lower bound is above the upper one; exchange them")
    return within


class Part(Measurement):
    """A statistic for one subject, and the tolerance that its interval must lie within."""

    within: Annotated[tuple[float, float], AfterValidator(_rises)]
    planned: Planned | None = None
    seeds_from: int | None = None  # the first seed that decides, where it is not the claim's


class Claim(_Strict):
    """A claim under test, and what decides on it: paper/<study>/claims.yaml."""

    title: str
    claim: str
    original: str
    experiments: list[str]
    shown: str
    parts: list[Part]
    reason: str
    seeds_from: int = 0  # the first seed that decides: earlier ones were seen before its rule
    explored: list[Measurement] = []  # shown to explain, and no part of the verdict


Claims = RootModel[dict[str, Claim]]


def load_contents(path: Path) -> Contents:
    """The checked contents of a chapter. Raises UserError with one sentence for each problem."""
    return checked(Contents, read_yaml(path, "the keys order, first_view, figures, tables and notebooks"), path)


def load_claims(path: Path) -> dict[str, Claim]:
    """The checked claims by their names. Raises UserError with one sentence for each problem."""
    return checked(Claims, read_yaml(path, "claims by their names"), path).root


@dataclass(frozen=True)
class Chapter:
    """A study at one scale: its runs, what it shows of them, and what it claims."""

    study: Study
    scale: Scale
    experiments: Experiments
    contents: Contents
    claims: dict[str, Claim]

    @property
    def name(self) -> str:
        return self.study.name

    @cached_property
    def jobs(self) -> dict[str, list[BaseRun]]:
        """The runs of each training job."""
        shown = {figure: self.experiments_of(item) for figure, item in self.contents.figures.items()}
        figures = {one: [figure for figure, names in shown.items() if one in names] for one in self.experiments}
        return grid.jobs(self.study, self.experiments, figures)

    def claims_of(self, item: Item) -> dict[str, Claim]:
        """The claims that an item shows."""
        return self.claims if item.claims == ["all"] else {name: self.claims[name] for name in item.claims}

    def experiments_of(self, item: Item) -> list[str]:
        """The experiments that an item rests on: its own and those of its claims."""
        own = list(self.experiments) if item.experiments == ["all"] else item.experiments
        of_claims = [name for claim in self.claims_of(item).values() for name in claim.experiments]
        return list(dict.fromkeys([*own, *of_claims]))

    def runs_of(self, experiments: list[str]) -> list[BaseRun]:
        """The runs of these experiments, each once."""
        return grid.unique({name: self.experiments[name] for name in experiments})

    def jobs_of(self, experiments: Iterable[str]) -> list[str]:
        """The jobs that train the runs of these experiments."""
        wanted = {run for name in experiments for run in self.experiments[name]}
        return [name for name, runs in self.jobs.items() if not wanted.isdisjoint(runs)]

    @property
    def runs(self) -> list[BaseRun]:
        """All runs, each once."""
        return grid.unique(self.experiments)

    def seeds(self, claim: str) -> int:
        """How many seeds decide a claim; none where it rests on float64 checks alone."""
        stated = self.claims[claim]
        return len({run.seed for run in self.runs_of(stated.experiments) if run.seed >= stated.seeds_from})

    def check(self, config: Path, paper: Path) -> None:
        """Raise UserError for contents and claims that name an unknown experiment, claim, figure or table."""
        contents, claims = paper / "contents.yaml", paper / "claims.yaml"

        def require(names: Iterable[str], known: Iterable[str], where: str) -> None:
            for name in names:
                if name not in ("all", *known):
                    raise UserError(f"{where} = '{name}': expected one of {', '.join(known)}")

        shown = self.contents.shown
        of_config = f"experiments of {config}"
        for name, claim in self.claims.items():
            require([claim.shown], shown, f"{claims}: {name}: shown")
            require(claim.experiments, self.experiments, f"{claims}: {name}: {of_config}")
        for name, item in shown.items():
            require(item.claims, self.claims, f"{contents}: {name}: claims")
            require(item.experiments, self.experiments, f"{contents}: {name}: {of_config}")
        for name, notebook in self.contents.notebooks.items():
            require(filter(None, [notebook.data_of]), self.experiments, f"{contents}: {name}: data_of, {of_config}")
        require(filter(None, [self.contents.first_view]), self.contents.figures, f"{contents}: first_view")


def load_chapter(root: Path, name: str, scale: str) -> Chapter:
    """A study at one scale, checked. Raises UserError with one sentence for each problem."""
    study, paper = load(name), root / "paper" / name
    loaded, experiments = grid.load_scale(grid.config_path(root, name), scale, study)
    contents, claims = load_contents(paper / "contents.yaml"), load_claims(paper / "claims.yaml")
    chapter = Chapter(study, loaded, experiments, contents, claims)
    chapter.check(Path("config", name, f"{scale}.yaml"), paper.relative_to(root))
    return chapter


def published_table(root: Path, study: str, scale: str) -> Path:
    """The published runs of a study at one scale, in the form of a job's table."""
    return root / "results" / "published" / study / f"{scale}.parquet"


def published_scales(root: Path, study: str) -> list[str]:
    """The scales of a study that are published."""
    tables = (root / "results" / "published" / study).glob("*.parquet")
    return sorted(path.stem for path in tables if path.stem != "checks")


def load_chapters(root: Path, config: Config, study: str = "") -> dict[str, Chapter]:
    """The studies that have the scale, or published it, in the order of the paper, or this one alone. Raises UserError
    where none has it."""
    scale, chosen = config.scale_name, "metrics = 'published', " if config.metrics == "published" else ""
    if study not in ("", *names()):
        raise UserError(f"STUDY = '{study}': expected one of {', '.join(names())}")
    known = {
        name: published_scales(root, name) if chosen else grid.scales(grid.config_path(root, name))
        for name in names()
        if study in ("", name)
    }
    chapters = [load_chapter(root, name, scale) for name, own in known.items() if scale in own]
    if not chapters:
        expected = ", ".join(sorted(set().union(*known.values()))) or "none: train first"
        raise UserError(f"config: {chosen}scale = '{scale}': expected one of {expected}")
    return {chapter.name: chapter for chapter in sorted(chapters, key=lambda one: (one.contents.order, one.name))}


def target_names(chapters: dict[str, Chapter]) -> dict[tuple[str, str], str]:
    """How Snakemake calls each figure and table: by its name, with that of its study before it where two have it."""
    items = [(name, item) for name, chapter in chapters.items() for item in chapter.contents.shown]
    count = Counter(item for _, item in items)
    shared = {item for item in count if count[item] > 1 or item in COMMON_TABLES}
    return {(name, item): f"{name}_{item}" if item in shared else item for name, item in items}
