"""What the paper includes, and how it is typeset."""

import argparse
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from effective_lr.config import UserError

INCLUSION = re.compile(r"\\(includegraphics|input|include|bibliography)\s*(?:\[[^\]]*\])?\s*\{([^}]*)\}")
ENDING = {"includegraphics": ".pdf", "input": ".tex", "include": ".tex", "bibliography": ".bib"}


@dataclass
class Manuscript:
    """The files that a LaTeX source rests on: sources beside it, and generated files with where they are named."""

    sources: list[str] = field(default_factory=list)
    generated: dict[str, str] = field(default_factory=dict)


def scan(main: Path) -> Manuscript:
    """Follow \\input, \\include, \\includegraphics and \\bibliography from `main`.

    A name that exists beside `main` is a source; any other is generated. Raises UserError when a name holds a macro,
    which would hide a file from the workflow, or when a named folder or bibliography is not there.
    """
    manuscript = Manuscript()

    def visit(source: Path) -> None:
        if str(source) in manuscript.sources:
            return
        if not source.exists():
            raise UserError(f"{source}: no such file; the paper needs it")
        manuscript.sources.append(str(source))
        for number, line in enumerate(source.read_text().splitlines(), start=1):
            for command, names in INCLUSION.findall(re.sub(r"(?<!\\)%.*", "", line)):
                for name in names.split(","):
                    where = f"{source}:{number}: \\{command}{{{names}}}"
                    if "\\" in name:
                        raise UserError(f"{where}: the name holds a macro; write the file name out")
                    file = name.strip() if Path(name.strip()).suffix else name.strip() + ENDING[command]
                    beside = main.parent / file
                    if beside.suffix == ".tex" and beside.exists():
                        visit(beside)
                    elif beside.exists():
                        manuscript.sources.append(str(beside))
                    elif command == "bibliography" or "/" in file:
                        raise UserError(f"{where}: no such source file: {beside}")
                    else:
                        manuscript.generated.setdefault(file, where)

    visit(main)
    return manuscript


def typeset(main: Path, build: Path) -> None:
    """Make build/main.pdf, with generated files found in `build`. Raises UserError where LaTeX is missing or fails."""
    here = main.parent
    if shutil.which("latexmk") and shutil.which("pdflatex"):
        # A trailing colon keeps LaTeX's own search path.
        paths = dict.fromkeys(("TEXINPUTS", "BIBINPUTS"), f"{here}:{build}:")
        command = [
            "latexmk",
            "-pdf",
            "-interaction=nonstopmode",
            "-halt-on-error",
            f"-output-directory={build}",
            str(main),
        ]
    elif shutil.which("tectonic"):
        paths = {}
        command = [
            "tectonic",
            "-X",
            "compile",
            "-Z",
            f"search-path={build}",
            "--keep-logs",
            "--outdir",
            str(build),
            str(main),
        ]
    else:
        raise UserError(
            "no LaTeX found: expected latexmk with pdflatex, or tectonic; on Debian or Ubuntu type: "
            "sudo apt-get install latexmk texlive-latex-recommended texlive-fonts-recommended lmodern"
        )
    if subprocess.run(command, env={**os.environ, **paths, "max_print_line": "1000"}, check=False).returncode:
        raise UserError(f"{main}: LaTeX failed; the first line that starts with '!' in {build / 'main.log'} says why")


def main() -> int:
    parser = argparse.ArgumentParser(description="Typeset the paper.")
    parser.add_argument("main", type=Path, help="the LaTeX source")
    parser.add_argument("--build", type=Path, required=True, help="folder of the generated files and of the PDF")
    arguments = parser.parse_args()
    try:
        typeset(arguments.main, arguments.build)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
