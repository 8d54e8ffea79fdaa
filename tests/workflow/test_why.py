"""What Snakemake would make again, in a few lines, in copies of the repository in which all was made."""

from pathlib import Path

import pytest

from checkouts import Checkout
from effective_lr.engine import why
from effective_lr.errors import UserError

STUDY = "workflow/effective_lr/studies/normalization"


@pytest.fixture
def inside(finished: Checkout, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    monkeypatch.chdir(finished.root)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return finished


def test_nothing_is_made_again_where_nothing_changed(inside: Checkout) -> None:
    assert why.tell_jobs("", ["scale=smoke"]) == []


def test_changed_code_and_titles_are_told_by_item_and_the_rest_is_counted(inside: Checkout) -> None:
    title = inside.chapters()["normalization"].contents.tables["layers"].title
    inside.edit("paper/normalization/contents.yaml", title, f"{title}, edited")
    inside.append(f"{STUDY}/figures.py", "EDITED = 1\n")
    *lines, last = why.tell_jobs("", ["scale=smoke"])
    by_rule = {line.split()[1].rstrip(":"): line for line in lines}
    assert set(by_rule) <= {"figure", "table", "numbers", "notebook"}  # what imports figures.py, and the table
    figures, tables = by_rule["figure"], by_rule["table"]
    assert "normalization/" in figures and "stability/" not in figures and figures.endswith("its code changed")
    assert tables.split()[:3] == ["1", "table", "normalization/layers:"] and "settings changed" in tables
    assert last.endswith(" jobs follow from these")  # the PDF among them


def test_a_target_is_asked_alone(inside: Checkout) -> None:
    inside.append(f"{STUDY}/figures.py", "EDITED = 1\n")
    [line] = why.tell_jobs("plane", ["scale=smoke"])
    assert line.split() == ["1", "figure", "normalization/plane:", "its", "code", "changed"]


def test_what_was_removed_is_not_made_yet(inside: Checkout) -> None:
    Path("paper/build/smoke/normalization/plane.pdf").unlink()
    [line] = why.tell_jobs("plane", ["scale=smoke"])
    assert line.split() == ["1", "figure", "normalization/plane:", "not", "made", "yet"]


def test_what_snakemake_refuses_is_one_sentence(inside: Checkout) -> None:
    with pytest.raises(UserError, match="plnae"):
        why.tell_jobs("plnae", ["scale=smoke"])
