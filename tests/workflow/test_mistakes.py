"""Mistakes in the config, the contents and the text: one sentence that leads to them, exit code 1, nothing made."""

import contextlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from checkouts import Checkout
from effective_lr.document import manuscript
from effective_lr.engine.inputs import Layout
from effective_lr.errors import UserError

SMOKE, CONTENTS, CLAIMS, TEXT = (
    "config/normalization/smoke.yaml",
    "paper/normalization/contents.yaml",
    "paper/normalization/claims.yaml",
    "paper/normalization/text.tex",
)
Refusal = Callable[..., str]


@pytest.fixture
def refusal(fresh: Checkout) -> Refusal:
    """What is message of an edit, which is undone after that; of keys of the config where a path is not given."""

    def refusal(path: str = "", old: str = "", new: str = "", **chosen: str) -> str:
        text = (fresh.root / path).read_text() if path else ""
        if path:
            assert old in text
            (fresh.root / path).write_text(text.replace(old, new) if old else f"{text}{new}\n")
        with contextlib.chdir(fresh.root), pytest.raises(UserError) as caught:
            chapters = Layout.load(fresh.root, **chosen).chapters
            manuscript.scan(fresh.root / "paper", list(chapters), fresh.root)
        if path:
            (fresh.root / path).write_text(text)
        return str(caught.value)

    return refusal


def test_config(refusal: Refusal) -> None:
    message = refusal(scael="smoke")
    assert "config: scael: " in message and "'scale'" in message
    message = refusal(scale="huge")
    assert "scale = 'huge'" in message and "smoke" in message
    message = refusal(SMOKE, "steps: 40  #", "step: 40  #")
    assert f"{SMOKE}: defaults.step: " in message and "'steps'" in message


def test_a_scale_without_an_experiment_that_the_paper_shows(fresh: Checkout, refusal: Refusal) -> None:
    fresh.edit("config/normalization/laptop.yaml", "\n  growth:\n", "\n  growht:\n")
    message = refusal(SMOKE, "\n  growth:\n", "\n  growht:\n")
    assert message.startswith(f"{SMOKE}: experiments.growth: missing")
    assert "paper/normalization/" in message  # contents or claims that rest on it


def test_contents_and_claims(fresh: Checkout, refusal: Refusal) -> None:
    message = refusal(CONTENTS, "first_view: plane", "first_veiw: plane")
    assert f"{CONTENTS}: first_veiw: " in message and "'first_view'" in message
    shown = fresh.chapters()["normalization"].claims["C8"].shown
    tail = (fresh.root / CLAIMS).read_text().split("\nC8:")[1]
    message = refusal(CLAIMS, tail, tail.replace(f"shown: {shown}", "shown: nowhere", 1))
    assert f"{CLAIMS}: C8: shown = 'nowhere'" in message and shown in message


def test_text(fresh: Checkout, refusal: Refusal) -> None:
    lines = (fresh.root / TEXT).read_text().splitlines()
    [first] = [number for number, line in enumerate(lines, start=1) if "{plane}" in line and "figure" in line]
    message = refusal(TEXT, new=r"\columnfigure{plane}")
    assert message.startswith(rf"{TEXT}:{len(lines) + 1}: \columnfigure{{plane}}: ") and f"{TEXT}:{first}" in message
    message = refusal(TEXT, new=r"\input{normalization/practice}")
    assert f"{TEXT}:{len(lines) + 1}: " in message and "paper/normalization/practice.tex" in message


def test_an_item_that_nothing_makes_ends_snakemake_with_one_sentence(fresh: Checkout) -> None:
    text = (fresh.root / TEXT).read_text()
    for line in (r"\widefigure{missing}", r"\columntable{missing}"):
        (fresh.root / TEXT).write_text(f"{text}{line}\n")
        result = fresh.snakemake("--cores", "1")
        assert result.returncode == 1
        assert [path.name for path in (fresh.root / "results").iterdir()] == ["published"]
        lines = [one for one in result.stderr.splitlines() if not re.match("Using workflow|Config file", one)]
        assert len(lines) == 1, lines
        assert lines[0].startswith(f"{TEXT}:{len(text.splitlines()) + 1}: {line}: ") and CONTENTS in lines[0]


def test_an_unknown_number(smoke: Checkout, tmp_path: Path) -> None:
    checkout = smoke.copy(tmp_path / "copy")
    number = len((checkout.root / TEXT).read_text().splitlines()) + 1
    checkout.append(TEXT, "\\num{contour_slope/nobody}\n")
    result = checkout.command("paper")
    assert result.returncode == 1
    assert result.stderr.startswith(f"{TEXT}:{number}: \\num{{contour_slope/nobody}}: ")
    assert "numbers.tex" in result.stderr and len(result.stderr.splitlines()) == 1
