"""Mistakes in the config, the contents and the text: one sentence that leads to them, exit code 1, nothing made."""

from collections.abc import Callable
from pathlib import Path

import pytest

from checkouts import Checkout

Refused = Callable[..., str]
TEXT = "paper/normalization/text.tex"


@pytest.fixture
def refused(fresh: Checkout) -> Refused:
    def refused(*words: str) -> str:
        result = fresh.snakemake("--cores", "1", *words)
        assert result.returncode == 1
        assert [path.name for path in (fresh.root / "results").iterdir()] == ["published"]
        assert "Traceback" not in result.stderr
        said = [line for line in result.stderr.splitlines() if not line.startswith(("Using workflow", "Config file"))]
        assert len(said) == 1, said
        return said[0]

    return refused


def test_an_unknown_key_on_the_command_line(refused: Refused) -> None:
    said = refused("--config", "scael=smoke")
    assert "config: scael: " in said and "'scale'" in said


def test_a_scale_that_no_study_has(refused: Refused) -> None:
    said = refused("--config", "scale=huge")
    assert "scale = 'huge'" in said and "smoke" in said


def test_an_unknown_key_in_a_scale(fresh: Checkout, refused: Refused) -> None:
    fresh.edit("config/normalization/smoke.yaml", "steps: 40  #", "step: 40  #")
    said = refused()
    assert "config/normalization/smoke.yaml: defaults.step: " in said and "'steps'" in said


def test_a_scale_without_an_experiment_that_the_paper_shows(fresh: Checkout, refused: Refused) -> None:
    for scale in ("laptop", "smoke"):
        fresh.edit(f"config/normalization/{scale}.yaml", "\n  growth:\n", "\n  growht:\n")
    said = refused()
    assert said.startswith("config/normalization/smoke.yaml: experiments.growth: missing")
    assert "paper/normalization/" in said  # contents or claims that rest on it


def test_an_unknown_key_in_the_contents(fresh: Checkout, refused: Refused) -> None:
    fresh.edit("paper/normalization/contents.yaml", "checks: true", "cheks: true")
    said = refused()
    assert "paper/normalization/contents.yaml: tables.exact.cheks: " in said and "'checks'" in said


def test_a_claim_shown_in_what_there_is_not(fresh: Checkout, refused: Refused) -> None:
    shown = fresh.chapters()["normalization"].claims["C8"].shown
    text = (fresh.root / "paper/normalization/claims.yaml").read_text()
    head, tail = text.split("\nC8:")
    (fresh.root / "paper/normalization/claims.yaml").write_text(
        f"{head}\nC8:{tail.replace(f'shown: {shown}', 'shown: nowhere', 1)}"
    )
    said = refused()
    assert "paper/normalization/claims.yaml: C8: shown = 'nowhere'" in said and shown in said


@pytest.mark.parametrize("line", [r"\widefigure{missing}", r"\columntable{plane}", r"\columnfigure{exact}"])
def test_an_item_that_is_not_in_the_contents(fresh: Checkout, refused: Refused, line: str) -> None:
    number = len((fresh.root / TEXT).read_text().splitlines()) + 1
    fresh.append(TEXT, line + "\n")
    said = refused()
    assert said.startswith(f"{TEXT}:{number}: {line}: ")
    # Of an item of the other kind the sentence may say that it is placed already.
    assert "paper/normalization/contents.yaml" in said or "placed before" in said


def test_an_item_that_is_placed_twice(fresh: Checkout, refused: Refused) -> None:
    lines = (fresh.root / TEXT).read_text().splitlines()
    [first] = [number for number, line in enumerate(lines, start=1) if "{plane}" in line and "figure" in line]
    fresh.append(TEXT, "\\columnfigure{plane}\n")
    said = refused()
    assert said.startswith(f"{TEXT}:{len(lines) + 1}: \\columnfigure{{plane}}: ") and f"{TEXT}:{first}" in said


def test_a_section_of_the_paper_that_is_not_there(fresh: Checkout, refused: Refused) -> None:
    number = len((fresh.root / TEXT).read_text().splitlines()) + 1
    fresh.append(TEXT, "\\input{normalization/practice}\n")
    said = refused()
    assert f"{TEXT}:{number}: " in said and "paper/normalization/practice.tex" in said


def test_a_number_that_there_is_not(smoke: Checkout, tmp_path: Path) -> None:
    checkout = smoke.copy(tmp_path / "copy")
    lines = (checkout.root / TEXT).read_text().splitlines()
    checkout.append(TEXT, "\\num{contour_slope/nobody}\n")
    result = checkout.snakemake("paper", "--cores", "1")
    assert result.returncode == 1
    where = f"{TEXT}:{len(lines) + 1}: \\num{{contour_slope/nobody}}: "
    [said] = [line for line in result.stderr.splitlines() if line.startswith(where)]
    assert "numbers.tex" in said
