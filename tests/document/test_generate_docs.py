"""The generated documentation: equal to its source, and true."""

from typing import Any

from effective_lr.document import generate_docs
from effective_lr.document.generate_docs import deciding_test, section
from effective_lr.engine.grid import Config
from effective_lr.engine.study import load, names
from shared import ROOT


def test_every_generated_file_is_as_its_source_makes_it() -> None:
    for path, text in generate_docs.generated().items():
        assert path.read_text() == text, f"{path}: type `make docs`"


def test_a_section_is_replaced_between_its_marks() -> None:
    text = "before\n<!-- scales: written by `make docs` -->\nold\n<!-- end of scales -->\nafter\n"
    new = section(text, "scales", "new")
    assert new == text.replace("old", "new")
    assert section(new, "scales", "new") == new


def test_every_setting_has_a_line_with_its_source_and_every_key_of_the_config_one() -> None:
    keys = (ROOT / "config" / "README.md").read_text()
    for key, field in Config.model_fields.items():
        assert f"| `{key}` |" in keys and (field.default is None or f"`{str(field.default).lower()}`" in keys)
    for study in names():
        page = (ROOT / "config" / study / "README.md").read_text()
        for key in load(study).run.model_fields:
            [line] = [line for line in page.splitlines() if line.startswith(f"| `{key}` |")]
            *_, source, _, _ = (cell.strip() for cell in line.split("|"))
            assert source, key


def part(subject: str, verdict: str, value: float, low: float, high: float) -> dict[str, Any]:
    about = {"subject": subject, "statistic": "symmetry_error", "unit": "points", "within": [0, 1.5], "why": ""}
    return {**about, "verdict": verdict, "value": value, "low": low, "high": high, "freedom": None}


def test_a_verdict_is_shown_with_the_test_that_decided_it() -> None:
    passed, close = part("batch", "reproduced", 0.5, 0.3, 0.7), part("weight", "reproduced", 1.0, 0.7, 1.4)
    open_, failed = part("layer", "undecided", 2, 0.1, 3.8), part("none", "not reproduced", 4, 3, 5)
    for verdict, parts, shown in [
        ("reproduced", [passed, close], "weight, symmetry error: 1.0 [0.7, 1.4] points, within 0 to 1.5"),
        ("undecided", [passed, open_], "layer, symmetry error: 2.0 [0.1, 3.8] points, within 0 to 1.5"),
        ("reproduced in part", [passed, open_, failed], "none, symmetry error: 4.0 [3.0, 5.0] points, within 0 to 1.5"),
    ]:
        claim = {"verdict": verdict, "parts": parts}
        assert deciding_test("normalization", claim) == shown
    exact = {**part("batch", "reproduced", 1e-14, 2e-15, 1.48e-14), "statistic": "invariance", "unit": ""}
    assert "1e-14 [2e-15, 1.5e-14]" in deciding_test("normalization", {"verdict": "reproduced", "parts": [exact]})


def test_the_pages_are_short() -> None:
    readme, pages = (ROOT / "README.md").read_text(), sorted((ROOT / "docs").glob("*.md"))
    assert [page.name for page in pages] == ["artifact.md", "developers.md", "results.md", "usage.md"]
    assert len(readme.splitlines()) <= 90
    words = " ".join([readme, *(page.read_text() for page in pages)]).replace("|", " ").split()
    assert sum(any(map(str.isalnum, word)) for word in words) <= 5000
