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
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from effective_lr.config import PositiveFloat, Run, UserError

PACKAGE = Path(__file__).parent
# What a trained result depends on. The other modules of a training job only decide how it is made and kept.
TRAINING_SOURCES = [PACKAGE / f"{name}.py" for name in ("config", "data", "networks", "optimizers", "training")]

# What is published was trained at this scale; all its runs are in one table, in the form of a shard.
PUBLISHED_SCALE = "study"
PUBLISHED_TABLE = Path("results/published") / f"{PUBLISHED_SCALE}.parquet"


class Config(BaseModel):
    """The keys of config/config.yaml, all of which `snakemake --config key=value` may override."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scale: str = "laptop"
    metrics: Literal["recompute", "published"] = "recompute"
    data_folder: str = "data"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    gpu_slots: PositiveInt = 1
    checkpoint_seconds: PositiveFloat = 60
    retrain: bool = False


class Experiment(BaseModel):
    """A grid: every combination of the values in `grid` and in one of `cases`, settings that go together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str
    grid: dict[str, Any] = {}
    cases: list[dict[str, Any]] = [{}]


class Scale(BaseModel):
    """A file of config/scales: the settings that its runs share and the experiments that it makes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str
    watermark: str = ""
    defaults: dict[str, Any]
    experiments: dict[str, Experiment]

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


class Part(BaseModel):
    """A statistic for one subject, and the tolerance that its interval must lie within."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    subject: str
    statistic: str
    unit: str = ""
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


def load_claims(path: Path) -> dict[str, Claim]:
    """The checked claims by their names. Raises UserError with one sentence for each problem."""
    problems, claims = [], {}
    for name, content in yaml.safe_load(path.read_text()).items():
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
    try:
        scale = Scale(**_read_scale(path))
        scale.runs()
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        known = [*Scale.model_fields, *Experiment.model_fields]
        raise UserError("\n".join(f"{path}: {text}" for text in explain(error, known))) from None
    except UserError as error:
        raise UserError("\n".join(f"{path}: {text}" for text in str(error).splitlines())) from None
    return scale


def _read_scale(path: Path, based_on_it: tuple[str, ...] = ()) -> dict[str, Any]:
    """What the file says, over what the scale says that it is based on."""
    content = yaml.safe_load(path.read_text())
    if not isinstance(content, dict):
        raise UserError(f"expected the keys about, defaults and experiments, found {content!r}")
    base = content.pop("based_on", None)
    if base is None:
        return content
    chain = (*based_on_it, path.stem)
    others = sorted(other.stem for other in path.parent.glob("*.yaml") if other.stem not in chain)
    if base not in others:
        raise UserError(f"based_on = {base!r}: expected one of the other scales, not in a circle")
    return _over(_read_scale(path.with_stem(base), chain), content)


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


def nearest(key: str, known: Iterable[str]) -> str:
    """What to write instead of an unknown key: `; did you mean 'epochs'?`, or where the known ones are listed."""
    close = difflib.get_close_matches(key, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else "; config/README.md lists the keys"


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
