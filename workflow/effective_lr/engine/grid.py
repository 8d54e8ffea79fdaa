"""From the config to runs and jobs: a scale holds experiments, experiments are grids, grids expand to runs.

The Snakefile imports it: nothing here imports torch.
"""

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from os.path import expanduser, expandvars
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from effective_lr.engine.resources import CPU_SPEED
from effective_lr.engine.study import BaseRun, PositiveFloat, Study
from effective_lr.engine.validation import explain, nearest, read_yaml
from effective_lr.errors import UserError

Experiments = dict[str, list[BaseRun]]  # the runs of each experiment, each once


def key(default: Any, description: str, change: str) -> Any:
    """A key of the config; `change` is when to change it."""
    return Field(default=default, description=description, json_schema_extra={"change": change})


TAKEN = {"checks", "data", "published"}  # names that files and folders of results have


def _names_a_scale(name: str | None) -> str | None:
    """It becomes the name of files, folders and targets, and stands in commands and in LaTeX."""
    if name is not None and (not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) or name.startswith("published-")):
        raise ValueError(f"scale = '{name}': expected letters, digits, _ and -; give its file another name")
    if name in TAKEN:
        raise ValueError(f"scale = '{name}': results have a folder or a file of that name; give its file another one")
    return name


class Config(BaseModel):
    """The keys of config/config.yaml, all of which `snakemake --config key=value` may override."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scale: Annotated[str | None, AfterValidator(_names_a_scale)] = key(
        None,
        "what to train, a file of config/<study>: smoke (minutes), laptop (30 to 70 minutes), study (hours), cifar "
        "(as laptop), paper (GPUs); null is laptop, and study with metrics = published",
        "to try everything quickly, to decide on the claims, or for a grid of your own",
    )
    metrics: Literal["recompute", "published"] = key(
        "recompute",
        "recompute trains what is missing; published trains nothing and redraws everything from the committed results "
        "of the scale",
        "to see the published study, or to change how it is shown",
    )
    data_folder: Annotated[str, AfterValidator(lambda text: expandvars(expanduser(text)))] = key(
        "data",
        "folder that is looked at first for the data files, and that downloads go to",
        "where the data lie elsewhere, or this disk is too small (CIFAR-10 needs 0.4 GB)",
    )
    device: Literal["auto", "cpu", "cuda"] = key(
        "auto", "where to train; auto takes a GPU where one is visible", "to keep off a GPU, or to insist on one"
    )
    gpu_slots: PositiveInt = key(
        1, "training jobs that share a GPU", "raise it until the GPU is busy; lower it when its memory is full"
    )
    checkpoint_seconds: PositiveFloat = key(
        60, "seconds between checkpoints, all that a kill can cost a run", "raise it on a slow disk"
    )
    retrain: bool = key(
        False,
        "train every planned run again, though the run cache may hold it",
        "to measure costs anew, with --forcerun train",
    )

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

    about: str = Field(description="what the experiment is for")
    grid: dict[str, Any] = Field(default={}, description="settings; every combination of the values in lists is run")
    cases: list[dict[str, Any]] = Field(
        default=[{}], description="settings that go together; the grid is run with each case in turn"
    )


class Scale(BaseModel):
    """A file of config/<study>: the settings that its runs share and the experiments that it makes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str = Field(description="what the scale is for, and what it costs")
    watermark: str = Field(default="", description="a line printed across every page of the paper")
    defaults: dict[str, Any] = Field(description="settings that all runs share unless an experiment overrides them")
    experiments: dict[str, Experiment] = Field(description="the experiments by name")

    def runs(self, model: type[BaseRun]) -> Experiments:
        """The runs of each experiment, without repetition within one; experiments may share runs.

        Raises UserError with every problem of every experiment, one sentence each.
        """
        problems: dict[str, str] = {}  # what: where it was first met, so that a wrong default is reported once
        experiments: Experiments = {}
        for name, experiment in self.experiments.items():
            where = f"experiments.{name}"
            unknown = False
            for key in {**self.defaults, **experiment.grid, **{key: None for case in experiment.cases for key in case}}:
                if key not in model.model_fields:
                    place = "defaults" if key in self.defaults else where
                    problems.setdefault(f".{key}: unknown key{nearest(key, model.model_fields)}", place)
                    unknown = True
            if unknown:
                continue
            runs: dict[str, BaseRun] = {}
            for case in experiment.cases:
                settings = {**self.defaults, **experiment.grid, **case}
                axes = [value if isinstance(value, list) else [value] for value in settings.values()]
                if not all(axes):
                    problems[": no runs: a list in its grid or cases is empty; fill it or leave it out"] = where
                for values in itertools.product(*axes):
                    try:
                        run = model(**dict(zip(settings, values, strict=True)))
                    except ValidationError as error:
                        for text in explain(error, model.model_fields):
                            problems.setdefault(f": {text}", where)
                    else:
                        runs[run.run_id] = run
            if not experiment.cases:
                problems[": no runs: cases is empty; fill it or leave it out"] = where
            experiments[name] = list(runs.values())
        if problems:
            raise UserError("\n".join(where + what for what, where in problems.items()))
        return experiments


def load_config(root: Path, chosen: dict[str, Any]) -> Config:
    """The config: these keys over those of config/config.yaml. Raises UserError with a sentence for each problem."""
    own = Path.cwd() / "config" / "config.yaml"  # of a working directory elsewhere
    path = own if own.exists() else root / "config" / "config.yaml"
    try:
        return Config(**{**read_yaml(path, "keys of the config"), **chosen})
    except ValidationError as error:
        texts = explain(error, Config.model_fields)
        raise UserError("\n".join(f"config: {text}" for text in texts)) from None


def scales(folder: Path) -> list[str]:
    """The scales that a study has, by the files in its folder of config/."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_scale(folder: Path, name: str, study: Study) -> tuple[Scale, Experiments]:
    """The checked scale `folder/name.yaml` and its runs. Raises UserError with one sentence for each problem."""
    path = folder / f"{name}.yaml"
    if name not in scales(folder):
        raise UserError(f"config: scale = '{name}': expected one of {', '.join(scales(folder))}")
    content = _read_scale(path)
    try:
        scale = Scale(**content)
        return scale, scale.runs(study.run)
    except ValidationError as error:
        known = [*Scale.model_fields, *Experiment.model_fields]
        problems = explain(error, known)
    except UserError as error:
        problems = str(error).splitlines()
    raise UserError("\n".join(f"{path}: {text}" for text in problems))


def _read_scale(path: Path, based_on_it: tuple[str, ...] = ()) -> dict[str, Any]:
    """The content of the file, over that of the scale on which it is based."""
    content = read_yaml(path, "the keys about, defaults and experiments")
    base = content.pop("based_on", None)
    if base is None:
        return content
    chain = (*based_on_it, path.stem)
    if base not in set(scales(path.parent)) - set(chain):
        raise UserError(f"{path}: based_on = {base!r}: expected one of the other scales, not in a circle")
    return _over(_read_scale(path.with_stem(base), chain), content)


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
MOST_JOBS = 8  # of one group of experiments: longer jobs at larger scales, not more


def jobs(study: Study, experiments: Experiments, figures: Mapping[str, Collection[str]]) -> dict[str, list[BaseRun]]:
    """The runs by training job, <first experiment>-<number>; which job has which depends on the runs alone.

    The runs of a job need the same data, and are shown by the same figures (`figures` of each experiment): so a figure
    trains the runs that it shows, and no others.
    """
    members: dict[str, list[str]] = {}
    for name, runs in experiments.items():
        for run in runs:
            members.setdefault(run.run_id, []).append(name)
    groups: dict[tuple[frozenset[str], str | None], list[BaseRun]] = {}
    for run in sorted(unique(experiments), key=lambda run: run.run_id):
        shown_by = frozenset(figure for name in members[run.run_id] for figure in figures[name])
        groups.setdefault((shown_by, study.data(run)), []).append(run)
    found: dict[str, list[BaseRun]] = {}
    count: Counter[str] = Counter()
    for runs in groups.values():
        name = min(members[run.run_id][0] for run in runs)
        for part in _parts(study, runs):
            count[name] += 1
            found[f"{name}-{count[name]}"] = part
    return found


def _parts(study: Study, runs: list[BaseRun]) -> list[list[BaseRun]]:
    """The runs in parts of about equal work."""
    seconds = [study.operations(run) / CPU_SPEED for run in runs]
    number = min(max(round(sum(seconds) / JOB_SECONDS), 1), MOST_JOBS)
    ends = itertools.accumulate(seconds)
    parts: dict[int, list[BaseRun]] = {}
    for run, own, end in zip(runs, seconds, ends, strict=True):
        middle = (end - own / 2) / sum(seconds) if sum(seconds) else 0
        parts.setdefault(int(number * middle), []).append(run)
    return list(parts.values())


def runs_hash(runs: list[BaseRun]) -> str:
    """A hash of the settings of runs: Snakemake plans a job again when it changes."""
    text = json.dumps([run.model_dump() for run in runs], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
