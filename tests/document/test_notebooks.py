"""The notebooks: their text, their place in the contents, and what a failing cell leaves."""

import json
from pathlib import Path

import jupytext  # type: ignore[import-untyped]
import nbformat
import pytest

from effective_lr.document.execute_notebooks import run, with_formulas
from effective_lr.engine.contents import load_contents
from effective_lr.engine.study import names
from effective_lr.errors import UserError
from shared import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*/*.py"))


def test_each_is_listed_begins_with_its_parameters_and_comes_back_from_jupyter_as_it_was() -> None:
    for study in names():
        listed = load_contents(ROOT / "paper" / study / "contents.yaml").notebooks
        assert {path.stem for path in NOTEBOOKS if path.parent.name == study} == set(listed)
    for path in NOTEBOOKS:
        opened = jupytext.reads(path.read_text(), fmt="py:percent")
        parameters = [
            cell.metadata.get("tags", []) == ["parameters"] for cell in opened.cells if cell.cell_type == "code"
        ]
        assert parameters == [True] + [False] * (len(parameters) - 1), path
        opened.metadata["language_info"] = {"name": "python", "version": "3.11"}  # as a running kernel has it
        ipynb = nbformat.writes(opened)
        assert jupytext.writes(nbformat.reads(ipynb, as_version=4), fmt="py:percent") == path.read_text()


def test_formulas_become_elements() -> None:
    page = with_formulas(r"From $\rho_*$ follows $$\frac{\eta}{\lVert w\rVert^2},$$ and no more.")
    assert page.startswith("From <math") and page.endswith("</math> and no more.")
    assert page.count("<math") == 2 and "\\" not in page and "$" not in page
    assert 'stretchy="false">&#x02016;' in page


FAILING = """# %% tags=["parameters"]
number = 0

# %%
print("before", number)

# %%
1 / (number - 1)

# %%
print("after")
"""


def test_a_failing_cell_leaves_what_ran_until_then(tmp_path: Path) -> None:
    source, executed = tmp_path / "failing.py", tmp_path / "executed.ipynb"
    notebook, page = tmp_path / "failing.ipynb", tmp_path / "failing.html"
    source.write_text(FAILING)
    with pytest.raises(UserError, match=r"failing\.py: cell \d failed \(ZeroDivisionError.*executed\.ipynb"):
        run(source, '{"number": 1}', executed, notebook, page)
    assert not notebook.exists() and not page.exists()
    cells = json.loads(executed.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert ["".join(output["text"]) for output in outputs if output["output_type"] == "stream"] == ["before 1\n"]
    assert [output["ename"] for output in outputs if output["output_type"] == "error"] == ["ZeroDivisionError"]

    run(source, '{"number": 3, "unknown": 2}', executed, notebook, page)
    assert "0.5" in page.read_text() and "unknown" not in notebook.read_text()
