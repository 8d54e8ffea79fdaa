"""What the paper is made of, and how it is typeset.

paper/main.tex is the paper, paper/<study>/text.tex a chapter. Floats are placed by name, \\widefigure{plane}, and
\\num{contour_slope/sgd} is a number: both are found in the folder of the study among the generated files.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from effective_lr.document.notation import latex
from effective_lr.errors import UserError

FRAME = "paper"  # stands where a study does for what belongs to the paper as a whole
COMMAND = re.compile(
    r"\\(?:(?P<float>(?:column|wide)(?P<kind>figure|table))|(?P<input>input|include|bibliography)"
    r"|(?P<chapters>chapters|appendices))(?![a-z])\s*(?:\{(?P<name>[^}]*)\})?"
)


class Float(NamedTuple):
    """A figure or table where the text places it."""

    kind: str  # figure or table
    study: str
    item: str
    where: str  # for messages: file, line and command


class Manuscript(NamedTuple):
    """The sources of the paper, and its floats in the order in which they are numbered."""

    sources: list[str]
    floats: list[Float]

    def numbered(self, kind: str) -> dict[str, Float]:
        """figure_1, figure_2, ... or table_1, ...: what the PDF prints under that number."""
        placed = [float_ for float_ in self.floats if float_.kind == kind]
        return {f"{kind}_{number}": float_ for number, float_ in enumerate(placed, start=1)}


def scan(paper: Path, studies: list[str], root: Path) -> Manuscript:
    """Follow the sources from `paper`/main.tex through the chapters of these studies, and find the floats.

    Raises UserError where a source is missing, or a name holds a macro, which would hide a file from the workflow.
    """
    manuscript = Manuscript([], [])

    def visit(source: Path, study: str, by: str = "") -> None:
        shown = source.relative_to(root)
        if not source.exists():
            raise UserError(f"{by}{shown}: no such file; the paper needs it")
        if str(source) in manuscript.sources:
            return
        manuscript.sources.append(str(source))
        if source.suffix == ".bib":
            return
        for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), start=1):
            for found in COMMAND.finditer(re.sub(r"(?<!\\)%.*|\\(re)?newcommand\{[^}]*\}.*", "", line)):
                where, name = f"{shown}:{number}: {found[0]}", found["name"] or ""
                if "\\" in name or "#" in name:
                    raise UserError(f"{where}: the name contains a macro; write the full name")
                if found["float"]:
                    manuscript.floats.append(Float(found["kind"], study, name, where))
                elif found["input"] and name != "chapters":  # which is generated
                    ending = ".bib" if found["input"] == "bibliography" else ".tex"
                    visit((paper / name).with_suffix(ending), study, f"{where}: ")
                elif found["chapters"]:
                    file = {"chapters": "text.tex", "appendices": "appendix.tex"}[found["chapters"]]
                    for other in studies:
                        if file == "text.tex" or (paper / other / file).exists():
                            visit(paper / other / file, other, f"{where}: ")

    visit(paper / "main.tex", FRAME)
    return manuscript


def chapters_tex(paper: Path, studies: list[str], watermark: str) -> str:
    """What main.tex inputs: the numbers of all studies, and macros that go through their chapters."""
    lines = [rf"\newcommand{{\watermarktext}}{{{latex(watermark)}}}"]
    lines += [rf"\input{{{study}/numbers}}" for study in [FRAME, *studies]]
    for macro, file in [("chapters", "text"), ("appendices", "appendix")]:
        inputs = [rf"\chapterof{{{study}}}{{{file}}}" for study in studies if (paper / study / f"{file}.tex").exists()]
        lines.append(rf"\newcommand{{\{macro}}}{{{''.join(inputs)}}}")
    return "\n".join([*lines, ""])


def typeset(main: Path, build: Path) -> None:
    """Make build/main.pdf, with generated files found in `build`. Raises UserError where LaTeX is missing or fails."""
    main = Path(os.path.relpath(main))  # the folder of the repository may have a name that TeX cannot read
    here = main.parent
    if shutil.which("latexmk") and shutil.which("pdflatex"):
        if odd := sorted({*str(main)} & {*'$%~\\"'}):
            raise UserError(f"{main}: LaTeX cannot read a path with {' '.join(odd)}; rename that folder")
        # A trailing colon keeps LaTeX's own search path; -norc leaves out the user's start-up files.
        paths = dict.fromkeys(("TEXINPUTS", "BIBINPUTS"), f"{here}:{build}:")
        options = ["-norc", "-pdf", "-interaction=nonstopmode", "-halt-on-error", "-file-line-error"]
        options.append(f"-output-directory={build}")
        command = ["latexmk", *options, str(main)]
    elif shutil.which("tectonic"):
        paths = {}
        options = ["-Z", f"search-path={build}", "--keep-logs", "--outdir", str(build)]
        command = ["tectonic", "-X", "compile", *options, str(main)]
    else:
        raise UserError(
            "no LaTeX found: expected latexmk with pdflatex, or tectonic; on Debian or Ubuntu type: "
            "sudo apt-get install latexmk texlive-latex-recommended texlive-fonts-recommended lmodern"
        )

    def succeeds() -> bool:
        return subprocess.run(command, env={**os.environ, **paths, "max_print_line": "1000"}).returncode == 0

    left = [path for path in build.glob("main.*") if path.suffix not in (".pdf", ".tex")]
    if not succeeds():
        # A LaTeX that was killed leaves files at which every later one fails: once more without those of earlier runs.
        for path in left:
            path.unlink(missing_ok=True)
        if left and succeeds():
            return
        log = build / "main.log"
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        error = re.search(r"^(.+\.\w+:\d+: .*?)\.?$", text, re.MULTILINE)
        raise UserError(f"{error[1] if error else f'{main}: LaTeX failed'}; {log} has the details")
