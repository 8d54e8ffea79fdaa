"""Sentences about what pydantic and YAML find wrong: the key, what was found, what was expected."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from effective_lr.errors import UserError

SOME = 12  # names that stand for all


def nearest(key: str, known: Iterable[str], elsewhere: Mapping[str, str]) -> str:
    """What to do about an unknown key: put it where it belongs, write another one, or see where keys are listed.

    `elsewhere` has, by key, where a key belongs that stands in the wrong place.
    """
    if key in elsewhere:
        return f" here; it {elsewhere[key]}"
    close = difflib.get_close_matches(key, list(known), n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    far = difflib.get_close_matches(key, list(elsewhere), n=1)
    if far:
        return f"; did you mean '{far[0]}', which {elsewhere[far[0]]}?"
    return "; config/README.md lists the keys"


def meant(name: str, known: Iterable[str]) -> str:
    """What to write instead of a name that there is not: one near it, or some of all."""
    names = list(dict.fromkeys(known))
    close = difflib.get_close_matches(name, names, n=3)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    some = ", ".join(names[:SOME])
    return f"; expected one of {some}" if len(names) <= SOME else f"; expected a name like {some} ({len(names)} in all)"


def explain(error: ValidationError, known: Iterable[str], elsewhere: Mapping[str, str] | None = None) -> list[str]:
    """One sentence for each problem that pydantic found; the parts of a union are one problem."""
    problems: dict[str, str] = {}
    for problem in error.errors():
        place = [part for part in problem["loc"] if not (isinstance(part, str) and ("[" in part or part in TYPES))]
        key = ".".join(str(part) for part in place)
        if problem["type"] == "extra_forbidden":
            text = f"{key}: unknown key{nearest(str(place[-1]), known, elsewhere or {})}"
        elif problem["type"] == "missing":
            text = f"{key}: missing; set it"
        elif problem["type"] == "value_error":
            text = str(problem["ctx"]["error"])
            key = key or text
        elif key in problems:  # another part of the same union
            text = f"{problems[key]}, or {lower(problem['msg'])}"
        else:
            text = f"{key} = {problem['input']!r}: {lower(problem['msg'])}"
        problems[key] = text
    return list(dict.fromkeys(problems.values()))


TYPES = {"float", "int", "str", "bool", "constrained-float", "constrained-int"}  # how pydantic names parts of a union


def lower(text: str) -> str:
    return text[0].lower() + text[1:]


if TYPE_CHECKING:
    from yaml import SafeLoader
else:  # that of libyaml, where it is: six times faster, and each start of Snakemake reads some twenty files
    SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(SafeLoader):
    """YAML without keys that stand twice in one mapping, the first of which PyYAML forgets silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key '{key}' stands twice, in lines {seen[key]} and {line}; keep one of them",
                    problem_mark=key_node.start_mark,
                )
            seen[key] = line
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, expected: str) -> dict[str, Any]:
    """The mapping in a YAML file. Raises UserError where there is none, or a key stands twice."""
    try:
        content = yaml.load(path.read_text(), Loader=_Loader)
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
