"""From the config to runs and shards: scales hold experiments, experiments are grids, grids expand to runs.

Imported by the Snakefile in every job: nothing here imports torch.
"""

import ast
import difflib
import hashlib
import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from effective_lr.config import PositiveFloat, Run, UserError

PACKAGE = Path(__file__).parent
# What a trained result depends on. The other modules of a training job only decide how it is made and kept.
TRAINING_SOURCES = [PACKAGE / f"{name}.py" for name in ("config", "data", "networks", "optimizers", "training")]

# What is published was trained at this scale; all its runs are in one table, in the form of a shard.
PUBLISHED_SCALE = "study"
PUBLISHED_TABLE = Path("results/published") / f"{PUBLISHED_SCALE}.parquet"


def key(default: Any, description: str, change: str) -> Any:
    """A key of the config; `change` says when to change it."""
    return Field(default=default, description=description, json_schema_extra={"change": change})


class Config(BaseModel):
    """The keys of config/config.yaml, all of which `snakemake --config key=value` may override."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scale: str = key(
        "laptop",
        "what to train, a file of config/scales: smoke (2 minutes), laptop (half an hour), study (hours), paper (GPUs)",
        "to try everything quickly, to decide on the claims, or for a grid of your own",
    )
    metrics: Literal["recompute", "published"] = key(
        "recompute",
        "recompute trains what is missing; published trains nothing and redraws everything from the committed results",
        "to see the published study, or to change how it is shown",
    )
    data_folder: str = key(
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
        "to measure costs anew: `make retrain`",
    )


class Experiment(BaseModel):
    """A grid: every combination of the values in `grid` and in one of `cases`, settings that go together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str = Field(description="what the experiment is for")
    grid: dict[str, Any] = Field(default={}, description="settings; every combination of the values in lists is run")
    cases: list[dict[str, Any]] = Field(
        default=[{}], description="settings that go together; the grid is run with each case in turn"
    )


class Scale(BaseModel):
    """A file of config/scales: the settings that its runs share and the experiments that it makes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str = Field(description="what the scale is for, and what it costs")
    watermark: str = Field(default="", description="a line printed across every page of the paper")
    defaults: dict[str, Any] = Field(description="settings that all runs share unless an experiment overrides them")
    experiments: dict[str, Experiment] = Field(description="the experiments by name")

    def runs(self) -> dict[str, list[Run]]:
        """The runs of each experiment, without repetition within one; experiments may share runs.

        Raises UserError with every problem of every experiment, one sentence each.
        """
        problems: dict[str, str] = {}  # what: where it was first met, so a wrong default is told once
        experiments: dict[str, list[Run]] = {}
        for name, experiment in self.experiments.items():
            where = f"experiments.{name}"
            unknown = False
            for key in {**self.defaults, **experiment.grid, **{key: None for case in experiment.cases for key in case}}:
                if key not in Run.model_fields:
                    place = "defaults" if key in self.defaults else where
                    problems.setdefault(f".{key}: unknown key{nearest(key, Run.model_fields)}", place)
                    unknown = True
            if unknown:
                continue
            runs: dict[str, Run] = {}
            for case in experiment.cases:
                settings = {**self.defaults, **experiment.grid, **case}
                axes = [value if isinstance(value, list) else [value] for value in settings.values()]
                if not all(axes):
                    problems[": no runs: a list in its grid or cases is empty; fill it or leave it out"] = where
                for values in itertools.product(*axes):
                    try:
                        run = Run(**dict(zip(settings, values, strict=True)))
                    except ValidationError as error:
                        for text in explain(error, Run.model_fields):
                            problems.setdefault(f": {text}", where)
                    else:
                        runs[run.run_id] = run
            if not experiment.cases:
                problems[": no runs: cases is empty; fill it or leave it out"] = where
            experiments[name] = list(runs.values())
        if problems:
            raise UserError("\n".join(where + what for what, where in problems.items()))
        return experiments


class Measurement(BaseModel):
    """A statistic for one subject."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    subject: str
    statistic: str
    unit: str = ""


class Part(Measurement):
    """A statistic for one subject, and the tolerance that its interval must lie within."""

    within: tuple[float, float]


class Claim(BaseModel):
    """A claim of the original, and what decides on it (paper/claims.yaml)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    claim: str
    original: str
    experiments: list[str]
    shown: str
    parts: list[Part]
    reason: str
    explored: list[Measurement] = []  # after the results were seen: shown, and no part of the verdict


def load_claims(path: Path) -> dict[str, Claim]:
    """The checked claims by their names. Raises UserError with one sentence for each problem."""
    problems, claims = [], {}
    for name, content in _read_yaml(path, "claims by their names").items():
        try:
            claims[name] = Claim(**content)
        except ValidationError as error:
            known = [*Claim.model_fields, *Part.model_fields]
            problems += [f"{path}: {name}.{text}" for text in explain(error, known)]
    if problems:
        raise UserError("\n".join(problems))
    return claims


def load_config(values: dict[str, Any]) -> Config:
    """The checked config. Raises UserError with one sentence for each wrong key or value."""
    try:
        return Config(**values)
    except ValidationError as error:
        raise UserError("\n".join(f"config: {text}" for text in explain(error, Config.model_fields))) from None


def load_scale(folder: Path, name: str) -> Scale:
    """The checked scale `folder/name.yaml`. Raises UserError with one sentence for each problem."""
    path = folder / f"{name}.yaml"
    known = sorted(other.stem for other in folder.glob("*.yaml"))
    if name not in known:
        raise UserError(f"config: scale = '{name}': expected one of {', '.join(known)}")
    content = _read_scale(path)
    try:
        scale = Scale(**content)
        scale.runs()
    except ValidationError as error:
        known = [*Scale.model_fields, *Experiment.model_fields]
        raise UserError("\n".join(f"{path}: {text}" for text in explain(error, known))) from None
    except UserError as error:
        raise UserError("\n".join(f"{path}: {text}" for text in str(error).splitlines())) from None
    return scale


def _read_scale(path: Path, based_on_it: tuple[str, ...] = ()) -> dict[str, Any]:
    """What the file says, over what the scale says that it is based on."""
    content = _read_yaml(path, "the keys about, defaults and experiments")
    base = content.pop("based_on", None)
    if base is None:
        return content
    chain = (*based_on_it, path.stem)
    others = sorted(other.stem for other in path.parent.glob("*.yaml") if other.stem not in chain)
    if base not in others:
        raise UserError(f"{path}: based_on = {base!r}: expected one of the other scales, not in a circle")
    return _over(_read_scale(path.with_stem(base), chain), content)


def _read_yaml(path: Path, expected: str) -> dict[str, Any]:
    """The mapping in a YAML file. Raises UserError where there is none."""
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UserError(f"{path}: line {line}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UserError(f"{path}: not a text file; restore it") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected {expected}, found {content!r}")
    return content


def _over(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The changes over the base, key by key at every depth; a list takes the place of a list."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _over(base[key], value) if both else value
    return merged


def shards(runs: list[Run]) -> dict[str, list[Run]]:
    """Runs, each once, by the training job that carries them, ordered by λ and starting norm."""
    unique = {run.run_id: run for run in runs}
    result: dict[str, list[Run]] = {}
    for run in sorted(unique.values(), key=lambda run: (run.shard_id, run.l2, run.initial_norm)):
        result.setdefault(run.shard_id, []).append(run)
    return result


def to_json(runs: list[Run]) -> str:
    """The runs as one line of JSON: Snakemake compares params as a set of values without names, so they go as one."""
    return json.dumps([run.model_dump() for run in runs], sort_keys=True)


def code_fingerprint(paths: list[Path]) -> str:
    """A hash of the syntax trees of Python files: comments, docstrings, formatting and time stamps do not count."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
        digest.update(path.name.encode() + ast.dump(tree).encode())
    return digest.hexdigest()[:16]


# Where each key stands, for one that was found in the wrong place.
PLACES = {
    **dict.fromkeys(Scale.model_fields, "stands at the top of a file of config/scales"),
    **dict.fromkeys(("grid", "cases"), "stands in an experiment of a file of config/scales"),
    **dict.fromkeys(Run.model_fields, "is a setting of runs: defaults or an experiment of a file of config/scales"),
    **dict.fromkeys(Config.model_fields, "stands in config/config.yaml, or follows --config"),
}


def nearest(key: str, known: Iterable[str]) -> str:
    """What to do about an unknown key: write another one, put it where it belongs, or see where keys are listed."""
    if key in PLACES:
        return f" here; it {PLACES[key]}"
    close = difflib.get_close_matches(key, list(known), n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    elsewhere = difflib.get_close_matches(key, PLACES, n=1)
    if elsewhere:
        return f"; did you mean '{elsewhere[0]}', which {PLACES[elsewhere[0]]}?"
    return "; config/README.md lists the keys"


def explain(error: ValidationError, known: Iterable[str]) -> list[str]:
    """One sentence for each problem that pydantic found: the key, what was found and what was expected."""
    problems = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            problems.append(f"{key}: unknown key{nearest(str(problem['loc'][-1]), known)}")
        elif problem["type"] == "missing":
            problems.append(f"{key}: missing; set it")
        elif problem["type"] == "value_error":
            problems.append(str(problem["ctx"]["error"]))
        elif problem["loc"][0] == "affine_lr":  # pydantic reports each part of the union
            problems.append(f"affine_lr = {problem['input']!r}: expected a number greater than 0, or 'shared'")
        else:
            problems.append(f"{key} = {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}")
    return list(dict.fromkeys(problems))
