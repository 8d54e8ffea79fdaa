"""Execution of a notebook, and its page of HTML, which needs nothing from the net.

The tools are jupytext, papermill and nbconvert, in one process: to start each of them takes longer than their work.
"""

import json
import re
import shutil
import textwrap
import time
from pathlib import Path

import jupytext  # type: ignore[import-untyped]
import papermill  # type: ignore[import-untyped]
from latex2mathml.converter import convert
from nbconvert.exporters import HTMLExporter

from effective_lr.errors import UserError

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
NORM = "<mo>&#x02016;</mo>"  # which shall not grow with what stands beside it


def with_formulas(text: str) -> str:
    """Markdown with its formulas, in dollars, as MathML, which browsers show by themselves."""

    def mathml(found: re.Match[str]) -> str:
        display = str(found.lastgroup)
        elements: str = convert(found[display].strip(), display=display)
        return elements.replace(NORM, NORM.replace("<mo>", '<mo stretchy="false">'))

    return FORMULA.sub(mathml, text)


def run(source: Path, parameters: str, executed: Path, notebook: Path, page: Path) -> str:
    """Execute a notebook in py:percent with those of the parameters, in JSON, that it declares; write it and its page,
    nbconvert's with formulas as MathML; returns a line about it.

    Raises UserError when a cell fails: then `executed` has what ran until there, with the error.
    """
    start, opened = time.monotonic(), jupytext.read(source)
    declared = "".join(cell.source for cell in opened.cells if "parameters" in cell.metadata.get("tags", []))
    given = {name: value for name, value in json.loads(parameters).items() if re.search(rf"(?m)^{name}\b", declared)}
    try:
        done = papermill.execute_notebook(
            opened,
            executed,
            given,
            kernel_name="python3",
            language="python",  # where a notebook has no header that says so
            start_timeout=600,  # seconds: a busy machine starts it late
            progress_bar=False,
        )
    except papermill.PapermillExecutionError as error:
        why = textwrap.shorten(f"{error.ename}: {error.evalue}", 300)
        raise UserError(f"{source}: cell {error.exec_count} failed ({why}); {executed} shows where") from error
    for cell in done.cells:
        if cell.cell_type == "markdown":
            cell.source = with_formulas(cell.source)
    exporter = HTMLExporter(raw_template=TEMPLATE)  # type: ignore[no-untyped-call]
    text, _ = exporter.from_notebook_node(done, resources={"metadata": {"name": source.stem}})
    page.write_text(text, encoding="utf-8")
    shutil.copyfile(executed, notebook)
    return f"{source}: executed in {time.monotonic() - start:.0f} s"
