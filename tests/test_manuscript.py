"""What the paper includes, and how it is typeset: by latexmk, by tectonic, or by neither."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from effective_lr.config import UserError
from effective_lr.manuscript import scan, typeset

ROOT = Path(__file__).parent.parent

MAIN = r"""\documentclass{article}
\input{macros}
% \input{old} \includegraphics{older}
50\,\% of \includegraphics[width=\linewidth]{figure_1} % and \input{oldest}
\input{sections/theory} \include{settings}
\includegraphics {diagram.png}
\bibliographystyle{plainnat}
\bibliography{references,more.bib}
"""


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    """The folder of a paper that has all its sources."""
    (tmp_path / "sections").mkdir()
    (tmp_path / "main.tex").write_text(MAIN)
    (tmp_path / "sections" / "theory.tex").write_text("\n\\input{sections/proof}\\input{ table_1.tex }\n")
    (tmp_path / "sections" / "proof.tex").write_text("\\includegraphics{figure_1}\n")
    for name in ("diagram.png", "references.bib", "more.bib"):
        (tmp_path / name).touch()
    return tmp_path


# What it includes


def test_sources_are_followed_and_generated_files_are_found_with_their_places(paper: Path) -> None:
    manuscript = scan(paper / "main.tex")
    names = ["main.tex", "sections/theory.tex", "sections/proof.tex", "diagram.png", "references.bib", "more.bib"]
    assert manuscript.sources == [str(paper / name) for name in names]
    assert manuscript.generated == {
        "macros.tex": rf"{paper}/main.tex:2: \input{{macros}}",
        "figure_1.pdf": rf"{paper}/main.tex:4: \includegraphics{{figure_1}}",
        "table_1.tex": rf"{paper}/sections/theory.tex:2: \input{{ table_1.tex }}",
        "settings.tex": rf"{paper}/main.tex:5: \include{{settings}}",
    }


def test_the_paper_of_this_repository() -> None:
    manuscript = scan(ROOT / "paper" / "main.tex")
    assert manuscript.sources == [str(ROOT / "paper" / name) for name in ("main.tex", "references.bib")]
    assert set(manuscript.generated) == {
        *(f"figure_{number}.pdf" for number in range(1, 9)),
        *(f"{name}.tex" for name in ("macros", *(f"table_{number}" for number in range(1, 10)))),
    }
    # LaTeX numbers them in this order: `make figure_2` makes Figure 2.
    for kind, last in (("figure", 8), ("table", 9)):
        found = re.findall(rf"{kind}_(\d)", (ROOT / "paper" / "main.tex").read_text())
        assert found == [str(number) for number in range(1, last + 1)]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (r"\includegraphics{\results/figure_1}", "the name holds a macro; write the file name out"),
        (r"\input{sections/practice}", "no such source file: {paper}/sections/practice.tex"),
        (r"\includegraphics[width=1in]{photos/cat.jpg}", "no such source file: {paper}/photos/cat.jpg"),
        (r"\bibliography{references,missing}", "no such source file: {paper}/missing.bib"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(paper: Path, line: str, sentence: str) -> None:
    (paper / "main.tex").write_text(MAIN + line + "\n")
    with pytest.raises(UserError) as error:
        scan(paper / "main.tex")
    said = line.replace("[width=1in]", "")
    assert str(error.value) == f"{paper}/main.tex:9: {said}: {sentence.format(paper=paper)}"


def test_a_paper_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        scan(tmp_path / "main.tex")
    assert str(error.value) == f"{tmp_path}/main.tex: no such file; the paper needs it"


def test_inclusion_in_a_circle_ends(paper: Path) -> None:
    (paper / "sections" / "proof.tex").write_text("\\input{sections/theory}\n")
    assert "table_1.tex" in scan(paper / "main.tex").generated


# How it is typeset

NO_LATEX = (
    "no LaTeX found: expected latexmk with pdflatex, or tectonic; on Debian or Ubuntu type: "
    "sudo apt-get install latexmk texlive-latex-recommended texlive-fonts-recommended lmodern"
)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def install(programs: Path, name: str, status: int = 0) -> Path:
    """Put a stub among the programs; it notes each word it is given and the search paths. Returns its notes."""
    notes = programs / f"{name}.notes"
    (programs / name).write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" "TEXINPUTS=$TEXINPUTS" "BIBINPUTS=$BIBINPUTS" >{notes}\nexit {status}\n'
    )
    (programs / name).chmod(0o755)
    return notes


@pytest.mark.parametrize("present", [[], ["latexmk"], ["pdflatex"]])
def test_no_latex_says_what_to_install(programs: Path, present: list[str]) -> None:
    for name in present:
        install(programs, name)
    with pytest.raises(UserError) as error:
        typeset(Path("paper/main.tex"), Path("build"))
    assert str(error.value) == NO_LATEX


def test_latexmk_is_preferred_and_finds_sources_and_generated_files(programs: Path) -> None:
    install(programs, "pdflatex")
    tectonic, latexmk = install(programs, "tectonic"), install(programs, "latexmk")
    typeset(Path("paper/main.tex"), Path("build"))
    assert not tectonic.exists()
    assert latexmk.read_text().splitlines() == [
        "-pdf",
        "-interaction=nonstopmode",
        "-halt-on-error",
        "-output-directory=build",
        "paper/main.tex",
        "TEXINPUTS=paper:build:",
        "BIBINPUTS=paper:build:",
    ]


def test_tectonic_serves_where_latexmk_is_absent(programs: Path) -> None:
    notes = install(programs, "tectonic")
    typeset(Path("paper/main.tex"), Path("build"))
    expected = ["-X", "compile", "-Z", "search-path=build", "--keep-logs", "--outdir", "build", "paper/main.tex"]
    assert notes.read_text().splitlines()[: len(expected)] == expected


@pytest.mark.parametrize("program", ["latexmk", "tectonic"])
def test_a_latex_error_says_where_to_look(programs: Path, program: str) -> None:
    install(programs, "pdflatex")
    install(programs, program, status=12)
    with pytest.raises(UserError) as error:
        typeset(Path("paper/main.tex"), Path("build"))
    assert (
        str(error.value)
        == "paper/main.tex: LaTeX failed; the first line that starts with '!' in build/main.log says why"
    )


def command_line(main: Path, build: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "effective_lr.manuscript", str(main), "--build", str(build)]
    return subprocess.run(words, cwd=ROOT / "workflow", capture_output=True, text=True)


def test_the_command_line_ends_in_the_sentence(programs: Path) -> None:
    result = command_line(programs / "main.tex", programs / "build")
    assert (result.returncode, result.stderr) == (1, NO_LATEX + "\n")


latex = pytest.mark.skipif(
    not (shutil.which("latexmk") and shutil.which("pdflatex")), reason="needs latexmk with pdflatex"
)


@latex
def test_a_paper_in_two_folders_is_typeset(tmp_path: Path) -> None:
    main, build = tmp_path / "paper" / "main.tex", tmp_path / "build"
    main.parent.mkdir()
    build.mkdir()
    main.write_text("\\documentclass{article}\\input{style}\\begin{document}\\input{macros}\\Result\\end{document}\n")
    (main.parent / "style.tex").write_text("\\pagestyle{empty}\n")
    (build / "macros.tex").write_text("\\newcommand{\\Result}{1.5}\n")
    result = command_line(main, build)
    assert result.returncode == 0, result.stdout
    assert (build / "main.pdf").read_bytes().startswith(b"%PDF")
    assert [path.name for path in main.parent.iterdir()] == ["main.tex", "style.tex"]


@latex
def test_a_real_latex_error_ends_in_the_sentence_that_leads_to_it(tmp_path: Path) -> None:
    main = tmp_path / "main.tex"
    main.write_text("\\documentclass{article}\\begin{document}\\undefined\\end{document}\n")
    result = command_line(main, tmp_path)
    assert result.returncode == 1
    log = tmp_path / "main.log"
    assert result.stderr.splitlines()[-1] == (
        f"{main}: LaTeX failed; the first line that starts with '!' in {log} says why"
    )
    errors = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("!")]
    assert errors[0] == "! Undefined control sequence."
