"""Execution of a notebook, and its page of HTML, which needs nothing from the net.

The tools are jupytext, papermill and nbconvert, in one process: to start each of them takes longer than their work.
"""

import argparse
import copy
import json
import re
import shutil
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import jupytext  # type: ignore[import-untyped]
import papermill  # type: ignore[import-untyped]
from nbconvert.exporters import HTMLExporter

from effective_lr.config import UserError
from effective_lr.notation import mathml

# nbconvert's page, without the programs that it would load from the net, and no wider than is easy to read.
TEMPLATE = """
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_css -%}
<style>main { max-width: 70rem; margin: auto; } math { font-size: 1.1em; }</style>
{%- endblock -%}
"""
FORMULA = re.compile(r"\$\$(?P<block>.+?)\$\$|\$(?P<inline>.+?)\$", re.DOTALL)


def with_formulas(text: str) -> str:
    """Markdown with its formulas, in dollars, as MathML."""
    return FORMULA.sub(lambda found: mathml(found[str(found.lastgroup)], str(found.lastgroup)), text)


def execute(source: Path, parameters: dict[str, str], executed: Path) -> Any:
    """Run the cells of a notebook in py:percent, write it with what they put out, and return that.

    Raises UserError when a cell fails; what ran until then is written all the same, with the error.
    """
    notebook = jupytext.read(source)
    try:
        return papermill.execute_notebook(
            notebook,
            executed,
            parameters,
            kernel_name="python3",
            start_timeout=600,  # seconds: a busy machine starts it late
            progress_bar=False,
        )
    except papermill.PapermillExecutionError as error:
        why = textwrap.shorten(f"{error.ename}: {error.evalue}", 300)
        raise UserError(f"{source}: cell {error.exec_count} failed ({why}); {executed} shows where") from error


def page(notebook: Any, name: str) -> str:
    """The page of an executed notebook: nbconvert's, with formulas as MathML."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = with_formulas(cell.source)
    exporter = HTMLExporter(raw_template=TEMPLATE)  # type: ignore[no-untyped-call]
    text, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": name}})
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description="Execute a notebook.")
    parser.add_argument("source", type=Path, help="notebook in py:percent")
    parser.add_argument("--parameters", type=json.loads, default={}, help="JSON: values for its cell of parameters")
    parser.add_argument("--executed", type=Path, required=True, help="notebook to write, also when a cell fails")
    parser.add_argument("--notebook", type=Path, required=True, help="the same, only when none fails")
    parser.add_argument("--page", type=Path, required=True, help="HTML to write, only when no cell fails")
    arguments = parser.parse_args()
    start = time.monotonic()
    try:
        notebook = execute(arguments.source, arguments.parameters, arguments.executed)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    arguments.page.write_text(page(notebook, arguments.source.stem))
    shutil.copyfile(arguments.executed, arguments.notebook)
    print(f"{arguments.source}: executed in {time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
