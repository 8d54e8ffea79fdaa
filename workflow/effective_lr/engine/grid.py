"""From the config to runs and jobs: a scale holds experiments, experiments are grids, grids expand to runs.

The Snakefile imports it: nothing here imports torch.
"""

import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping
from os.path import expanduser, expandvars
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from effective_lr.engine.resources import CPU_SPEED
from effective_lr.engine.study import BaseRun, PositiveFloat, Study, sha256_of
from effective_lr.engine.validation import checked, explain, read_yaml
from effective_lr.errors import UserError

JOB_CONFIG = "EFFECTIVE_LR_CONFIG"  # an environment variable: what changes no result, which Snakemake must not compare
Experiments = dict[str, list[BaseRun]]  # the runs of each experiment, each once

SCALE_NAME = re.compile(r"(?!(checks|data|published)$|published-)[A-Za-z0-9][A-Za-z0-9_-]*")


def _names_a_scale(name: str | None) -> str | None:
    """It becomes the name of files, folders and targets, beside others of results, and stands in commands and LaTeX."""
    if name is not None and not SCALE_NAME.fullmatch(name):
        taken = "none of checks, data, published and published-..."
        raise ValueError(
            f"scale = '{name}': expected letters, digits, _ and -, and {taken}; give its file another name"
        )
    return name


class Config(BaseModel):
    """The keys of config/config.yaml, all of which `snakemake --config key=value` may override: config/README.md."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scale: Annotated[str | None, AfterValidator(_names_a_scale)] = None
    metrics: Literal["recompute", "published"] = "recompute"
    data_folder: Annotated[str, AfterValidator(lambda text: expandvars(expanduser(text)))] = "data"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    gpu_slots: PositiveInt = 1
    checkpoint_seconds: PositiveFloat = 60
    retrain: bool = False

    @property
    def scale_name(self) -> str:
        return self.scale or ("study" if self.metrics == "published" else "laptop")

    @property
    def results(self) -> str:
        """The folder, of results and of built papers, in which what is made lies."""
        return f"published-{self.scale_name}" if self.metrics == "published" else self.scale_name


class Experiment(BaseModel):
    """A grid: every combination of the values in `grid` and in one of `cases`, settings that go together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str
    grid: dict[str, Any] = {}
    cases: Annotated[list[dict[str, Any]], Field(min_length=1)] = [{}]


class Scale(BaseModel):
    """A file of config/<study>: the settings that its runs share and the experiments that it makes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str
    watermark: str = ""  # across every page of the paper
    defaults: dict[str, Any]  # settings that all runs share unless an experiment overrides them
    experiments: dict[str, Experiment]


def expand(scale: Scale, model: type[BaseRun], where: object = "") -> Experiments:
    """The runs of each experiment, without repetition within one; experiments may share runs.

    Raises UserError with every problem of every experiment, one sentence each, which begins with `where`.
    """
    problems: dict[str, str] = {}  # where each was first met, so that a wrong default is reported once
    experiments: Experiments = {}
    for name, experiment in scale.experiments.items():
        runs: dict[str, BaseRun] = {}
        for case in experiment.cases:
            settings = {**scale.defaults, **experiment.grid, **case}
            axes = [value if isinstance(value, list) else [value] for value in settings.values()]
            if not all(axes):
                problems["no runs: a list in its grid or cases is empty; fill it or leave it out"] = name
            for values in itertools.product(*axes):
                try:
                    run = model(**dict(zip(settings, values, strict=True)))
                    runs[run.run_id] = run
                except ValidationError as error:
                    for text in explain(error):
                        problems.setdefault(text, name)
        experiments[name] = list(runs.values())
    if problems:
        raise UserError("\n".join(f"{where}: experiments.{name}: {text}" for text, name in problems.items()))
    return experiments


def load_config(root: Path, chosen: dict[str, Any]) -> Config:
    """The config: these keys over those of config/config.yaml. Raises UserError with a sentence for each problem.

    A job of Snakemake finds in its environment what the user chose on the command line of that.
    """
    of_file = read_yaml(config_path(root, "config.yaml"), "keys of the config")
    of_job = json.loads(os.environ.get(JOB_CONFIG, "{}"))
    return checked(Config, {**of_file, **of_job, **chosen}, "config")


def config_path(root: Path, name: str) -> Path:
    """A file or folder of config/: that of a working directory elsewhere, if it is there, or that of the repository."""
    own = Path.cwd() / "config" / name
    return own if own.exists() else root / "config" / name


def scales(folder: Path) -> list[str]:
    """The scales that a study has, by the files in its folder of config/."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_scale(folder: Path, name: str, study: Study) -> tuple[Scale, Experiments]:
    """The checked scale `folder/name.yaml` and its runs. Raises UserError with one sentence for each problem."""
    path = folder / f"{name}.yaml"
    try:
        scale = checked(Scale, _read_scale(path), path)
    except RecursionError:
        raise UserError(f"{path}: based_on leads back to itself; name a scale that is not based on this one") from None
    return scale, expand(scale, study.run, path)


def _read_scale(path: Path) -> dict[str, Any]:
    """The content of the file, over that of the scale on which it is based."""
    content = read_yaml(path, "the keys about, defaults and experiments")
    base = content.pop("based_on", None)
    return content if base is None else _over(_read_scale(path.with_stem(str(base))), content)


def _over(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The changes over the base, key by key at every depth; a list takes the place of a list."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _over(base[key], value) if both else value
    return merged


def unique(experiments: Experiments) -> list[BaseRun]:
    """All runs of the experiments, each once."""
    return list({run.run_id: run for runs in experiments.values() for run in runs}.values())


JOB_SECONDS = 60  # of arithmetic, which a job should hold at least: its start takes seconds
TINY_SECONDS = 0.25  # as at the smoke scale
MOST_JOBS = 8  # of one group of experiments: longer jobs at larger scales, not more


def jobs(study: Study, experiments: Experiments, figures: Mapping[str, Collection[str]]) -> dict[str, list[BaseRun]]:
    """The runs by training job, <first experiment>-<number>; which job has which depends on the runs alone.

    The runs of a job need the same data, and are shown by the same figures (`figures` of each experiment): so a figure
    trains the runs that it shows, and no others. Only runs of tiny jobs are put together all the same.
    """
    members: dict[str, list[str]] = {}
    for name, runs in experiments.items():
        for run in runs:
            members.setdefault(run.run_id, []).append(name)
    groups: dict[tuple[frozenset[str], str | None], list[BaseRun]] = {}
    for run in sorted(unique(experiments), key=lambda run: run.run_id):
        shown_by = frozenset(figure for name in members[run.run_id] for figure in figures[name])
        groups.setdefault((shown_by, study.data(run)), []).append(run)
    last: dict[str | None, list[BaseRun]] = {}  # group, by data
    for (shown_by, data), runs in list(groups.items()):
        before = last.setdefault(data, runs)
        if before is not runs and max(sum(_seconds(study, before)), sum(_seconds(study, runs))) < TINY_SECONDS:
            before += groups.pop((shown_by, data))
        else:
            last[data] = runs
    found: dict[str, list[BaseRun]] = {}
    count: Counter[str] = Counter()
    for runs in groups.values():
        name = min(members[run.run_id][0] for run in runs)
        for part in _parts(study, runs):
            count[name] += 1
            found[f"{name}-{count[name]}"] = part
    return found


def _seconds(study: Study, runs: list[BaseRun]) -> list[float]:
    """Of arithmetic, at the speed that is assumed of a core."""
    return [study.operations(run) / CPU_SPEED for run in runs]


def _parts(study: Study, runs: list[BaseRun]) -> list[list[BaseRun]]:
    """The runs in parts of about equal work: each is in that part in which the middle of its own work lies."""
    seconds = _seconds(study, runs)
    total = sum(seconds) or 1.0
    number = min(max(round(total / JOB_SECONDS), 1), MOST_JOBS)
    parts: dict[int, list[BaseRun]] = {}
    for run, own, end in zip(runs, seconds, itertools.accumulate(seconds), strict=True):
        parts.setdefault(int(number * (end - own / 2) / total), []).append(run)
    return list(parts.values())


def runs_hash(runs: list[BaseRun]) -> str:
    """A hash of the settings of runs: Snakemake plans a job again when it changes."""
    return sha256_of([run.model_dump() for run in runs])[:16]
