"""The generated documentation: equal to its source, and true."""

import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from effective_lr.document import pages
from effective_lr.engine import contents, grid
from effective_lr.engine.study import load
from shared import ROOT

SCALES = sorted((ROOT / "config").glob("*/*.yaml"))
CONTENTS = sorted((ROOT / "paper").glob("*/contents.yaml"))


def test_every_generated_file_is_as_its_source_makes_it() -> None:
    for path, text in pages.generated().items():
        assert path.read_text() == text, f"{path}: type `make pages`"


def test_a_section_is_replaced_between_its_marks() -> None:
    text = "before\n<!-- keys: written by `make pages` -->\nold\n<!-- end of keys -->\nafter\n"
    new = pages.section(text, "keys", "new")
    assert new == text.replace("old", "new")
    assert pages.section(new, "keys", "new") == new


@pytest.mark.parametrize("study", contents.names())
def test_every_setting_has_a_line_with_its_source(study: str) -> None:
    page = (ROOT / "config" / study / "README.md").read_text()
    for key in load(study).run.model_fields:
        [line] = [line for line in page.splitlines() if line.startswith(f"| `{key}` |")]
        *_, source, _, _ = (cell.strip() for cell in line.split("|"))
        assert source, key


def test_the_default_config_is_the_config_at_its_defaults() -> None:
    written = yaml.safe_load((ROOT / "config/config.default.yaml").read_text())
    assert grid.Config(**written) == grid.Config()
    assert written.keys() == grid.Config.model_fields.keys()


def complaints(content: Any, schema: dict[str, Any]) -> list[str]:
    jsonschema.Draft202012Validator.check_schema(schema)
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(content)]


def schema_named_in(path: Path) -> dict[str, Any]:
    """The schema that the first line of a file names, for editors."""
    first, *_ = path.read_text().splitlines()
    schema: dict[str, Any] = yaml.safe_load((path.parent / first.partition("$schema=")[2]).read_text())
    return schema


@pytest.mark.parametrize("path", [*SCALES, *CONTENTS], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_editors_accept_the_committed_files(path: Path) -> None:
    assert complaints(yaml.safe_load(path.read_text()), schema_named_in(path)) == []


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        ((), "experimets", {}),
        (("defaults",), "step", 3),
        (("defaults",), "steps", 0),
        (("experiments", "plane_sgd"), "gird", {}),
        (("experiments", "plane_sgd", "grid"), "lr", [0.1, "0,1"]),
        (("experiments", "plane_sgd", "grid"), "optimizer", "sdg"),
        (("experiments", "symmetry", "cases", 0), "momentum", 1),
    ],
)
def test_editors_mark_a_mistake_in_a_scale(place: tuple[str, ...], key: str, value: Any) -> None:
    path = ROOT / "config/normalization/laptop.yaml"
    content = copy.deepcopy(yaml.safe_load(path.read_text()))
    part = content
    for step in place:
        part = part[step]
    part[key] = value
    assert len(complaints(content, schema_named_in(path))) == 1


def test_editors_know_the_config() -> None:
    schema = schema_named_in(ROOT / "config/config.yaml")
    values = yaml.safe_load((ROOT / "config/config.default.yaml").read_text())
    assert complaints(values, schema) == []
    assert len(complaints({**values, "scael": "smoke"}, schema)) == 1
    assert len(complaints({**values, "device": "gpu"}, schema)) == 1
