"""The interface of a study: the settings of its runs, and a description of the study by functions of these.

The Snakefile imports it: nothing here imports torch, and neither may `studies/<name>/__init__.py`.
"""

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

STUDIES = Path(__file__).parent.parent / "studies"

Fraction = Annotated[float, Field(gt=0, le=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0)]


def setting(description: str, source: str | Mapping[Any, str], change: str = "", **constraints: Any) -> Any:
    """A field of a run.

    `source` is the tag of where its value comes from ("ours" is always one), by value where that differs; `change` is
    when to change it. Neither these nor the description are part of the key of the code.
    """
    return Field(
        description=description,
        json_schema_extra={"source": dict(source) if isinstance(source, Mapping) else source, "change": change},
        **constraints,
    )


class BaseRun(BaseModel):
    """The settings of one training. Two equal runs of one study give equal results.

    A study adds its settings and `stem`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    named_axes: ClassVar[tuple[str, ...]] = ()  # settings that the name of a run shows beside its stem and seed

    seed: Seed

    @model_validator(mode="before")
    @classmethod
    def _has_numbers(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Two spellings that Python takes for numbers: `true` for 1, which is refused, and -0.0, which is 0."""
        for key, value in values.items():
            if isinstance(value, bool) and key in cls.model_fields and cls.model_fields[key].annotation is not bool:
                raise ValueError(f"{key} = {str(value).lower()}: expected a number or a name, not true or false")
        return {key: 0.0 if isinstance(value, float) and value == 0 else value for key, value in values.items()}

    @property
    def stem(self) -> str:
        """What is trained, for names of files: letters, digits, dots, hyphens and underscores."""
        raise NotImplementedError

    @property
    def run_id(self) -> str:
        """Readable and stable: only a setting that is changed, or added without a default, changes it."""
        axes = [f"{axis}_{short(getattr(self, axis))}" for axis in self.named_axes]
        digest = sha256_of(self.model_dump(exclude_defaults=True))[:6]
        return "-".join([self.stem, *axes, f"seed_{self.seed}", digest])

    def key(self, code_key: str, data_sha256: str) -> str:
        """The key of the run: a hash of all that its result depends on."""
        return sha256_of([self.model_dump(exclude_defaults=True), code_key, data_sha256])[:16]

    def changed(self, **settings: Any) -> Self:
        """The run with other settings, checked like any run."""
        return type(self)(**{**self.model_dump(), **settings})


def sha256_of(content: Any) -> str:
    """Of settings and whatever JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def short(value: Any) -> str:
    """For names of files and targets, in which Snakemake knows no plus sign."""
    return f"{value:g}".replace("e+", "e") if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Study:
    """What one paper asks. The modules of its folder are found by their names.

    settings, training   what decides results: `training.load(tensors, run, device)` gives the data of a run,
                         `training.train(run, data, saved, after_step)` trains it
    checks               `rows(seed)`: exact statements, tried in float64
    analysis             `derive(metrics, runs)`, if there: adds quantities that follow from those measured
    statistics           what claims are decided by
    figures, tables      a function for each item of contents.yaml
    numbers              `numbers(results)`, if there: the other numbers of the text
    """

    name: str
    title: str
    follows: str  # the paper, as the documentation names it
    run: type[BaseRun]
    data: Callable[[Any], str | None]  # the name of the prepared data of a run; None where it needs none
    summarized: tuple[str, ...]  # quantities of whole runs whose means become columns of the table of runs
    outcome: Callable[[dict[str, float]], str]  # these means in a few words
    operations: Callable[[Any], float]  # floating point operations of a whole run
    megabytes: Callable[[Any], int]  # that a run takes on the host beside PyTorch
    words: Mapping[str, str] = field(default_factory=dict)  # names of settings' values and of subjects, in LaTeX
    unit: str = "steps"  # of which a run sees `examples`
    optional_data: frozenset[str] = frozenset()  # prepared data that a user may lack: its runs are then skipped

    def module(self, name: str) -> ModuleType:
        """A module of its folder."""
        return importlib.import_module(f"effective_lr.studies.{self.name}.{name}")

    def find(self, module: str, function: str) -> Any:
        """A function of a module of its folder, or None where there is no such module or function."""
        if not (STUDIES / self.name / f"{module}.py").exists():
            return None
        return getattr(self.module(module), function, None)


def names() -> list[str]:
    """The studies, by their folders."""
    return sorted(path.parent.name for path in STUDIES.glob("*/__init__.py"))


def load(name: str) -> Study:
    """The study of that name."""
    study: Study = importlib.import_module(f"effective_lr.studies.{name}").STUDY
    return study
