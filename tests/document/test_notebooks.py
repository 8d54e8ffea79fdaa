"""The notebooks: their text, what the contents say of them, and what happens when a cell fails."""

import json
import re
import subprocess
from io import BytesIO
from pathlib import Path

import jupytext  # type: ignore[import-untyped]
import nbformat
import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from effective_lr.document.figures import few_colors
from effective_lr.document.notebooks import run, with_formulas
from effective_lr.engine import contents
from effective_lr.errors import UserError
from shared import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*/*.py"))
by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}/{path.stem}")


@pytest.mark.parametrize("study", contents.names())
def test_the_contents_list_all_of_them(study: str) -> None:
    listed = contents.load_contents(ROOT / "paper" / study / "contents.yaml").notebooks
    assert {path.stem for path in NOTEBOOKS if path.parent.name == study} == set(listed)


@by_name
def test_jupyter_writes_back_the_same_text(path: Path) -> None:
    opened = jupytext.reads(path.read_text(), fmt="py:percent")
    opened.metadata["language_info"] = {"name": "python", "version": "3.11"}  # as a running kernel tells
    ipynb = nbformat.writes(opened)
    assert jupytext.writes(nbformat.reads(ipynb, as_version=4), fmt="py:percent") == path.read_text()


@by_name
def test_the_first_code_is_the_cell_of_parameters(path: Path) -> None:
    cells = [cell for cell in jupytext.reads(path.read_text()).cells if cell.cell_type == "code"]
    assert [cell.metadata.get("tags", []) == ["parameters"] for cell in cells] == [True] + [False] * (len(cells) - 1)


def test_git_keeps_no_executed_notebook() -> None:
    tracked = subprocess.run(["git", "ls-files", "*.ipynb"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("no git repository")
    assert tracked.stdout == ""


@by_name
def test_one_that_reads_all_experiments_draws_every_figure(path: Path) -> None:
    listed = contents.load_contents(ROOT / "paper" / path.parent.name / "contents.yaml")
    if listed.notebooks[path.stem].experiments == "all":
        drawn = re.findall(r"^figures\.(\w+)\(", path.read_text(), flags=re.MULTILINE)
        assert set(drawn) == set(listed.figures)


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
        run(source, {"number": 1, "unknown": 2}, executed, notebook, page)  # type: ignore[dict-item]
    assert not notebook.exists() and not page.exists()
    cells = json.loads(executed.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert ["".join(output["text"]) for output in outputs if output["output_type"] == "stream"] == ["before 1\n"]
    assert [output["ename"] for output in outputs if output["output_type"] == "error"] == ["ZeroDivisionError"]

    run(source, {"number": 3}, executed, notebook, page)  # type: ignore[dict-item]
    assert "0.5" in page.read_text() and notebook.exists()


def test_few_colors_look_the_same_in_less_than_half_the_bytes() -> None:
    figure, axes = plt.subplots(1, 2, figsize=(7, 3))
    x = np.linspace(0, 6, 200)
    for shift, color in enumerate(plt.colormaps["viridis"](np.linspace(0, 1, 9))):
        axes[0].plot(x, np.sin(x + shift), color=color, label=f"{shift}")
    axes[0].legend()
    axes[1].pcolormesh(np.add.outer(x, x)[::10, ::10])
    whole = BytesIO()
    figure.savefig(whole, dpi=200)
    plt.close(figure)
    small = few_colors(whole.getvalue())
    before, after = (np.asarray(Image.open(BytesIO(one)).convert("RGB"), float) for one in (whole.getvalue(), small))
    assert len(small) < len(whole.getvalue()) / 2
    assert before.shape == after.shape
    assert (np.abs(before - after) > 16).mean() < 1e-3  # of 255: pixels on edges of lines
