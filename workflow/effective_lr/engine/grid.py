"""From the config to runs and jobs: a scale holds experiments, experiments are grids, grids expand to runs.

The Snakefile imports it: nothing here imports torch.
"""

import hashlib
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping
from os.path import expanduser, expandvars
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, PositiveInt, ValidationError

from effective_lr.engine.resources import CPU_SPEED
from effective_lr.engine.study import BaseRun, PositiveFloat, Study
from effective_lr.engine.validation import checked, explain, nearest, read_yaml
from effective_lr.errors import UserError

JOB_CONFIG = "EFFECTIVE_LR_CONFIG"  # an environment variable: what changes no result, which Snakemake must not compare
Experiments = dict[str, list[BaseRun]]  # the runs of each experiment, each once


TAKEN = {"checks", "data", "published"}  # names that files and folders of results have


def _names_a_scale(name: str | None) -> str | None:
    """It becomes the name of files, folders and targets, and stands in commands and in LaTeX."""
    if name is not None and (not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) or name.startswith("published-")):
        raise ValueError(f"scale = '{name}': expected letters, digits, _ and -; give its file another name")
    if name in TAKEN:
        raise ValueError(f"scale = '{name}': results have a folder or a file of that name; give its file another one")
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
    cases: list[dict[str, Any]] = [{}]


class Scale(BaseModel):
    """A file of config/<study>: the settings that its runs share and the experiments that it makes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str
    watermark: str = ""  # across every page of the paper
    defaults: dict[str, Any]  # settings that all runs share unless an experiment overrides them
    experiments: dict[str, Experiment]

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
    """The config: these keys over those of config/config.yaml. Raises UserError with a sentence for each problem.

    A job of Snakemake finds in its environment what the user chose on the command line of that.
    """
    own = Path.cwd() / "config" / "config.yaml"  # of a working directory elsewhere
    path = own if own.exists() else root / "config" / "config.yaml"
    of_job = json.loads(os.environ.get(JOB_CONFIG, "{}"))
    content = {**read_yaml(path, "keys of the config"), **of_job, **chosen}
    return checked(Config, content, "config", Config.model_fields)


def scales(folder: Path) -> list[str]:
    """The scales that a study has, by the files in its folder of config/."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_scale(folder: Path, name: str, study: Study) -> tuple[Scale, Experiments]:
    """The checked scale `folder/name.yaml` and its runs. Raises UserError with one sentence for each problem."""
    path = folder / f"{name}.yaml"
    if name not in scales(folder):
        raise UserError(f"config: scale = '{name}': expected one of {', '.join(scales(folder))}")
    scale = checked(Scale, _read_scale(path), path, [*Scale.model_fields, *Experiment.model_fields])
    try:
        return scale, scale.runs(study.run)
    except UserError as error:
        raise UserError("\n".join(f"{path}: {text}" for text in str(error).splitlines())) from None


def _read_scale(path: Path, based_on_it: tuple[str, ...] = ()) -> dict[str, Any]:
    """The content of the file, over that of the scale on which it is based."""
    content = read_yaml(path, "the keys about, defaults and experiments")
    base = content.pop("based_on", None)
    if base is None:
        return content
    chain = (*based_on_it, path.stem)
    if base not in set(scales(path.parent)) - set(chain):
        raise UserError(f"{path}: based_on = {base!r}: expected another scale that is not based on this one")
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
    packed: list[list[BaseRun]] = []
    last: dict[str | None, list[BaseRun]] = {}  # of them, by data
    for (_, data), runs in groups.items():
        before = last.get(data)
        if before and max(_seconds(study, before), _seconds(study, runs)) < TINY_SECONDS:
            before += runs
        else:
            packed.append(runs)
            last[data] = runs
    found: dict[str, list[BaseRun]] = {}
    count: Counter[str] = Counter()
    for runs in packed:
        name = min(members[run.run_id][0] for run in runs)
        for part in _parts(study, runs):
            count[name] += 1
            found[f"{name}-{count[name]}"] = part
    return found


def _seconds(study: Study, runs: list[BaseRun]) -> float:
    """Of arithmetic, at the speed that is assumed of a core."""
    return sum(map(study.operations, runs)) / CPU_SPEED


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
