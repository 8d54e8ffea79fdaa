"""The notebooks: their text, what the workflow knows of them, and what happens when a cell fails."""

import ast
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jupytext  # type: ignore[import-untyped]
import nbformat
import pytest
from effective_lr.notebooks import with_formulas

from test_dag import TARGETS, Checkout, fresh  # noqa: F401  (a fixture)
from test_setup import Machine, machine  # noqa: F401  (a fixture)

ROOT = Path(__file__).parent.parent
NOTEBOOKS = ["1_theory", "2_one_run", "3_results"]  # in the order of reading
PACKAGE = {path.stem: path for path in (ROOT / "workflow" / "effective_lr").glob("*.py")}


def text_of(notebook: str) -> str:
    return (ROOT / "notebooks" / f"{notebook}.py").read_text()


def value_of(name: str, source: str) -> Any:
    """The literal that a name is set to, in Python or a rule file before its first rule."""
    for node in ast.walk(ast.parse(source.partition("\nwildcard_constraints")[0])):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise KeyError(name)


def imported(source: str) -> set[str]:
    """The modules of the package that a source loads, and those that these load."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "effective_lr":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("effective_lr."):
            found.add(node.module.removeprefix("effective_lr."))
    return found.union(*(imported(PACKAGE[module].read_text()) for module in found))


# Their text


def test_there_are_no_others() -> None:
    assert sorted(path.name for path in (ROOT / "notebooks").glob("*.py")) == [f"{name}.py" for name in NOTEBOOKS]
    named = re.findall("|".join(NOTEBOOKS), (ROOT / "README.md").read_text())
    assert list(dict.fromkeys(named)) in ([], NOTEBOOKS)


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_jupyter_writes_back_the_same_text(notebook: str) -> None:
    opened = jupytext.reads(text_of(notebook), fmt="py:percent")
    opened.metadata["language_info"] = {"name": "python", "version": "3.11"}  # as a running kernel tells
    ipynb = nbformat.writes(opened)
    assert jupytext.writes(nbformat.reads(ipynb, as_version=4), fmt="py:percent") == text_of(notebook)


def test_git_keeps_no_executed_notebook() -> None:
    tracked = subprocess.run(["git", "ls-files", "*.ipynb"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("no git repository")
    assert tracked.stdout == ""


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_the_first_code_is_the_cell_of_parameters(notebook: str) -> None:
    cells = [cell for cell in jupytext.reads(text_of(notebook)).cells if cell.cell_type == "code"]
    assert [cell.metadata.get("tags", []) == ["parameters"] for cell in cells] == [True] + [False] * (len(cells) - 1)


# What the workflow knows of them


def test_every_module_that_a_notebook_loads_reruns_it() -> None:
    known = value_of("NOTEBOOKS", (ROOT / "workflow/rules/notebooks.smk").read_text())
    assert known == {notebook: sorted(imported(text_of(notebook))) for notebook in NOTEBOOKS}


def test_figure_2_is_drawn_from_what_the_paper_draws_it_from() -> None:
    assert value_of("shown_in_figure_2", text_of("3_results")) == TARGETS["figure_2"]


def test_every_figure_of_the_paper_is_drawn() -> None:
    figures = value_of("FIGURES", (ROOT / "workflow/rules/figures.smk").read_text())
    assert re.findall(r"FIGURES\[\"(\w+)\"\]\(", text_of("3_results")) == list(figures)


def test_make(machine: Machine) -> None:  # noqa: F811
    (machine.root / "notebooks").mkdir()  # it is not what `make notebooks` makes
    assert machine.make("notebooks", "SCALE=smoke").stdout.endswith("results/smoke/notebooks/*.html\n")
    assert machine.calls()[-1] == "snakemake notebooks --cores all --config scale=smoke"

    for tool in ("jupyter", "jupytext-config"):
        shutil.copy(machine.root / "bin" / "ruff", machine.root / "bin" / tool)  # a stub that tells its own name
        stub = machine.root / "bin" / tool
        stub.write_text(stub.read_text().replace("ruff", tool))
    assert machine.make("lab").returncode == 0
    assert machine.calls()[-1].startswith("jupyter lab ")
    assert any(call.endswith("set-default-viewer python") for call in machine.calls("jupytext-config"))


# Execution


def test_formulas_become_elements() -> None:
    page = with_formulas(r"From $\rho_*$ follows $$\frac{\eta}{\lVert w\rVert^2},$$ and no more.")
    assert page.startswith("From <math") and page.endswith("</math> and no more.")
    assert page.count("<math") == 2 and "\\" not in page and "$" not in page
    assert 'stretchy="false">&#x02016;' in page


FAILING = """# %% tags=["parameters"]
number = 0

# %%
print("before")

# %%
1 / number

# %%
print("after")
"""


def test_a_failing_cell_fails_the_job_and_leaves_what_ran_until_then(fresh: Checkout) -> None:  # noqa: F811
    page = "results/smoke/notebooks/1_theory.html"
    source = fresh.root / "notebooks" / "1_theory.py"
    source.write_text(FAILING)
    result = fresh.snakemake(page, "--cores", "1")
    assert result.returncode == 1
    kept = "results/smoke/logs/notebook-1_theory.ipynb"
    sentence = f"notebooks/1_theory.py: cell 3 failed (ZeroDivisionError: division by zero); {kept} shows where"
    assert sentence in (result.stdout + result.stderr).splitlines()
    assert not list((fresh.root / page).parent.glob("1_theory.*"))

    outputs = [
        output for cell in json.loads((fresh.root / kept).read_text())["cells"] for output in cell.get("outputs", [])
    ]
    assert "before\n" in [output["text"][0] for output in outputs if output["output_type"] == "stream"]
    assert "after\n" not in [output["text"][0] for output in outputs if output["output_type"] == "stream"]
    assert [output["ename"] for output in outputs if output["output_type"] == "error"] == ["ZeroDivisionError"]

    source.write_text(FAILING.replace("1 / number", "number"))
    fresh.build(page)
    assert (fresh.root / page).exists()


def test_the_theory_agrees_with_its_simulations(fresh: Checkout) -> None:  # noqa: F811
    fresh.build("results/smoke/notebooks/1_theory.html")
    page = (fresh.root / "results/smoke/notebooks/1_theory.html").read_text()
    assert page.count("data:image/png;base64") >= 8 and page.count("<math") > 80
    assert not re.search(r"(?:src|href)=[\"']?https?:|@import", page)  # it needs nothing from the net
