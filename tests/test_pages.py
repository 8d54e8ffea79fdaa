"""The generated documentation: equal to its source, and true."""

import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from effective_lr.config import Run

from effective_lr import grid, pages

ROOT = Path(__file__).parents[1]
SCALES = sorted((ROOT / "config" / "scales").glob("*.yaml"))


def test_every_generated_file_is_as_its_source_makes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for path, text in pages.generated().items():
        assert path.read_text() == text, f"{path}: type `make pages`"


def test_a_section_is_replaced_between_its_marks() -> None:
    text = "before\n<!-- keys: written by `make pages` -->\nold\n<!-- end of keys -->\nafter\n"
    new = pages.section(text, "keys", "new")
    assert new == text.replace("old", "new")
    assert pages.section(new, "keys", "new") == new


def test_verdicts_are_shown_with_what_has_digits() -> None:
    part = {"subject": "sgd", "statistic": "contour_slope", "value": 1.0, "low": 0.98, "high": 1.0234}
    exact = {"subject": "batch", "statistic": "invariance", "value": 1e-14, "low": 1e-15, "high": 1e-13}
    single = {"subject": "adam", "statistic": "contour_slope", "value": 0.5, "low": None, "high": None}
    claim = {"title": "Diagonals", "verdict": "undecided", "shown": "figure_2", "explored": []}
    text = pages.verdicts_table(
        {
            "C1": {**claim, "title": "Invariance", "verdict": "reproduced", "shown": "table_4", "parts": [exact]},
            "C5": {**claim, "parts": [{**part, "verdict": "reproduced"}, {**single, "verdict": "undecided"}]},
            "C6": {**claim, "parts": [], "explored": [part]},
        }
    )
    assert "| C1 Invariance | **reproduced** | exact in float64 | `make claim_C1`, `make table_4` |" in text
    found = "contour slope: sgd 1.00 [0.98, 1.02], adam no value"
    assert f"| C5 Diagonals | **undecided** | {found} | `make claim_C5`, `make figure_2` |" in text
    assert "| contour slope (explored afterwards): sgd 1.00 [0.98, 1.02] |" in text
    assert pages.interval(0.001, -0.001, 12.34) == "0.0 [0.0, 12.3]"


def test_every_setting_says_when_to_change_it() -> None:
    assert list(pages.advice()) == list(Run.model_fields)


def test_every_target_is_described_and_rests_on_known_experiments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    shown = pages.shown()
    assert {name for name, (_, needs) in shown.items() if needs is None} <= {"table_6"}
    assert shown["figure_7"] == ("Growth of the norm without a penalty", ["growth"])
    assert set(shown["table_1"][1] or []) == {"plane_sgd", "plane_nesterov", "plane_adam", "rmsprop"}


def complaints(content: Any, schema: dict[str, Any]) -> list[str]:
    jsonschema.Draft202012Validator.check_schema(schema)
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(content)]


@pytest.mark.parametrize("path", SCALES, ids=lambda path: path.stem)
def test_editors_accept_the_committed_scales(path: Path) -> None:
    first, *_ = path.read_text().splitlines()
    assert first == "# yaml-language-server: $schema=../../workflow/schemas/scale.json"
    assert complaints(yaml.safe_load(path.read_text()), pages.scale_schema()) == []


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        ((), "experimets", {}),
        (("defaults",), "step", 3),
        (("defaults",), "steps", 0),
        (("defaults",), "steps", [1, 2]),  # a list makes a grid, which a default is not
        (("experiments", "plane_sgd"), "gird", {}),
        (("experiments", "plane_sgd", "grid"), "lr", [0.1, "0,1"]),
        (("experiments", "plane_sgd", "grid"), "optimizer", "sdg"),
        (("experiments", "symmetry", "cases", 0), "momentum", 1),
    ],
)
def test_editors_mark_a_mistake_in_a_scale(place: tuple[str, ...], key: str, value: Any) -> None:
    content = copy.deepcopy(yaml.safe_load((ROOT / "config/scales/laptop.yaml").read_text()))
    part = content
    for step in place:
        part = part[step]
    part[key] = value
    assert len(complaints(content, pages.scale_schema())) == 1


def test_editors_know_the_config() -> None:
    schema = grid.Config.model_json_schema()
    values = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    assert complaints(values, schema) == []
    assert len(complaints({**values, "scael": "smoke"}, schema)) == 1
    assert len(complaints({**values, "device": "gpu"}, schema)) == 1
