"""Sentences about what pydantic and YAML find wrong: the key, what was found, what was expected."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from effective_lr.errors import UserError

TYPES = {"float", "int", "str", "bool", "constrained-float", "constrained-int"}  # how pydantic names parts of a union


def nearest(key: str, known: Iterable[str]) -> str:
    """What to do about an unknown key: write one near it, or see where keys are listed."""
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else "; config/README.md lists the keys of each file"


def explain(error: ValidationError, known: Iterable[str]) -> list[str]:
    """One sentence for each problem that pydantic found; the parts of a union are one problem."""
    problems: dict[str, str] = {}
    for problem in error.errors():
        place = [part for part in problem["loc"] if not (isinstance(part, str) and ("[" in part or part in TYPES))]
        key, message = ".".join(map(str, place)), problem["msg"][0].lower() + problem["msg"][1:]
        if problem["type"] == "extra_forbidden":
            problems[key] = f"{key}: unknown key{nearest(str(place[-1]), known)}"
        elif problem["type"] == "missing":
            problems[key] = f"{key}: missing; set it"
        elif problem["type"] == "value_error":
            text = str(problem["ctx"]["error"])
            problems[key or text] = text
        elif key in problems:  # another part of the same union
            problems[key] += f", or {message}"
        else:
            problems[key] = f"{f'{key} =' if key else 'found'} {problem['input']!r}: {message}"
    return list(dict.fromkeys(problems.values()))


Model = TypeVar("Model", bound=BaseModel)


def checked(model: type[Model], content: Any, where: object, known: Iterable[str]) -> Model:
    """The content as a model; `known` are its keys and those of its parts. Raises UserError with one sentence for each
    problem, which begins with `where`."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise UserError("\n".join(f"{where}: {text}" for text in explain(error, known))) from None


NOT_DECIMAL = re.compile(r"[-+]?(0[0-9_]+|0[xb][0-9a-f_]+|[0-9_]+(:[0-9_.]+)+)", re.IGNORECASE)


class _Loader(yaml.CSafeLoader):  # the fast one: each start of Snakemake reads some twenty files
    """YAML without what PyYAML reads silently in another way than people do.

    Of keys that stand twice in one mapping it forgets the first; 0100 is 64 for it, 08 a text, and 1:40 is 100.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, value_node in node.value:
            for value in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
                if isinstance(value, yaml.ScalarNode) and not value.style and NOT_DECIMAL.fullmatch(value.value):
                    raise yaml.MarkedYAMLError(
                        problem=f"{key_node.value}: {value.value} is not a decimal number; write it without leading "
                        "zeros and colons, or in quotes",
                        problem_mark=value.start_mark,
                    )
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key '{key}' appears twice, in lines {seen[key]} and {line}; keep one of them",
                    problem_mark=key_node.start_mark,
                )
            seen[key] = line
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, expected: str) -> dict[str, Any]:
    """The mapping in a YAML file. Raises UserError where there is none, or a key stands twice."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise UserError(f"{path}: missing; expected a file with {expected}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UserError(f"{path}: line {line}: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UserError(f"{path}: not a text file; restore it") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected {expected}, found {content!r}")
    return content
