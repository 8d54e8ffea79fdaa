"""Sentences about what pydantic and YAML find wrong: the key, what was found, what was expected."""

import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from effective_lr.errors import UserError, reason

TYPES = {"float", "int", "str", "bool", "constrained-float", "constrained-int"}  # how pydantic names parts of a union


def explain(error: ValidationError) -> list[str]:
    """One sentence for each problem that pydantic found; the parts of a union are one problem."""
    found: dict[str, list[str]] = {}  # messages by the key that they are about
    for problem in error.errors():
        place = [str(part) for part in problem["loc"] if part not in TYPES and "[" not in str(part)]
        key, message = ".".join(place), problem["msg"][0].lower() + problem["msg"][1:]
        if problem["type"] == "value_error":  # of our own, which begins with the key
            key, _, message = ".".join([*place[:-1], str(problem["ctx"]["error"])]).partition(": ")
        elif problem["type"] == "missing":
            message = "missing; set it"
        elif problem["type"] == "extra_forbidden":
            message = "unknown key; config/README.md and the other files of this kind have the keys"
        else:
            key = f"{key} = {problem['input']!r}" if key else f"found {problem['input']!r}"
        found.setdefault(key, []).append(message)
    return [": ".join(filter(None, [key, ", or ".join(messages)])) for key, messages in found.items()]


Model = TypeVar("Model", bound=BaseModel)


def checked(model: type[Model], content: Any, where: object) -> Model:
    """The content as a model. Raises UserError with one sentence for each problem, which begins with `where`."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise UserError("\n".join(f"{where}: {text}" for text in explain(error))) from None


class _Loader(yaml.CSafeLoader):  # the fast one: each start of Snakemake reads some twenty files
    """YAML without what PyYAML reads silently in another way than people do.

    Of keys that stand twice in one mapping it forgets the first; 0100 is 64 for it, and 1:40 is 100.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                problem = f"the key '{key.value}' appears twice; keep one of them"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def decimal(self, node: yaml.ScalarNode) -> int | str:
        return int(node.value) if re.fullmatch(r"[-+]?[0-9_]+", node.value) else node.value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.decimal)


def read_yaml(path: Path, expected: str) -> dict[str, Any]:
    """The mapping in a YAML file. Raises UserError where there is none, or a key stands twice."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        why = f"line {mark.line + 1}: {getattr(error, 'problem', '')}" if mark else reason(error)
        raise UserError(f"{path}: {why}; expected a file with {expected}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected {expected}, found {content!r}")
    return content
