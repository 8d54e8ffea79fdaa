"""What the paper is made of, and how it is typeset: by latexmk, by tectonic, or by neither."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pypdf import PdfReader

from effective_lr.document.manuscript import chapters_tex, require_known_numbers, scan, typeset
from effective_lr.errors import UserError
from shared import ROOT

MAIN = r"""\documentclass{article}
\input{preamble}
\input{chapters}
% \input{old} \columnfigure{older}
50\,\% of \num{studies} \columntable{overview} % and \input{oldest}
\chapters
\bibliography{references}
\appendices
"""
FIRST = r"""\section{First}
\widefigure{plane} \num{slope/sgd} \num[second]{count}
\input{first/theory}
"""


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    """The folder of a paper of two chapters that has all its sources."""
    folder = tmp_path / "paper"
    for study in ("first", "second"):
        (folder / study).mkdir(parents=True)
    (folder / "main.tex").write_text(MAIN)
    (folder / "preamble.tex").write_text("\\newcommand{\\columnfigure}[1]{\\includegraphics{\\study/#1}}\n")
    (folder / "references.bib").touch()
    (folder / "first/text.tex").write_text(FIRST)
    (folder / "first/theory.tex").write_text("\n\\columntable{exact}\n")
    (folder / "first/appendix.tex").write_text("\\columntable{settings}\n")
    (folder / "second/text.tex").write_text("\\columnfigure{plane} \\widefigure{time}\n")
    return folder


def scanned(paper: Path, *studies: str) -> list[str]:
    manuscript = scan(paper, list(studies), paper.parent)
    return [str(Path(source).relative_to(paper)) for source in manuscript.sources]


def test_sources_are_followed_through_the_chapters_and_a_circle_ends(paper: Path) -> None:
    first, last = ["main.tex", "preamble.tex", "first/text.tex", "first/theory.tex"], ["references.bib"]
    assert scanned(paper, "first", "second") == [*first, "second/text.tex", *last, "first/appendix.tex"]
    assert scanned(paper, "first") == [*first, *last, "first/appendix.tex"]
    (paper / "first/theory.tex").write_text("\\input{first/text}\n")
    assert scanned(paper, "first").count("first/text.tex") == 1


def test_floats_are_numbered_in_their_order_over_all_chapters(paper: Path) -> None:
    manuscript = scan(paper, ["second", "first"], paper.parent)
    figures = {name: (one.study, one.item) for name, one in manuscript.numbered("figure").items()}
    assert figures == {"figure_1": ("second", "plane"), "figure_2": ("second", "time"), "figure_3": ("first", "plane")}
    tables = [(one.study, one.item) for one in manuscript.numbered("table").values()]
    assert tables == [("paper", "overview"), ("first", "exact"), ("first", "settings")]


def refusal(paper: Path, line: str, check: Callable[[], object]) -> str:
    """The one sentence that a line at the end of the first chapter is refused with."""
    (paper / "first/text.tex").write_text(f"{FIRST}{line}\n")
    with pytest.raises(UserError) as error:
        check()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_name_that_leads_nowhere_or_twice_is_refused_with_its_place(paper: Path) -> None:
    for line, expected in {
        r"\widefigure{\results}": "macro",
        r"\input{first/practice}": "paper/first/practice.tex",
        r"\bibliography{missing}": "paper/missing.bib",
        r"\widefigure{plane}": "paper/first/text.tex:2",  # placed twice
    }.items():
        text = refusal(paper, line, lambda: scan(paper, ["first"], paper.parent))
        assert text.startswith(f"paper/first/text.tex:4: {line}: ") and expected in text
    with pytest.raises(UserError, match=r"nowhere/main\.tex"):
        scan(paper.parent / "nowhere", [], paper.parent)


@pytest.fixture
def build(paper: Path) -> Path:
    """Generated numbers of the frame and of both chapters."""
    folder = paper / "build"
    for study, names in {"paper": ["studies"], "first": ["slope/sgd"], "second": ["count"]}.items():
        (folder / study).mkdir(parents=True)
        lines = [rf"\definenumber{{{study}/{name}}}{{1}}" for name in names]
        (folder / study / "numbers.tex").write_text("\n".join(lines))
    return folder


def test_an_unknown_number_is_refused_with_its_place(paper: Path, build: Path) -> None:
    def check() -> None:
        require_known_numbers(paper, ["first", "second"], build, paper.parent)

    check()
    require_known_numbers(paper, ["first"], build, paper.parent)  # of a study that lacks the scale: it prints n/a
    for number in (r"\num{slope/adam}", r"\num{count}", r"\num[second]{slope/sgd}"):
        text = refusal(paper, f"% \\num{{old}}\nIt is {number}.", check)
        assert text.startswith(f"paper/first/text.tex:5: {number}: ")
        assert f"{'second' if '[' in number else 'first'}/numbers.tex" in text


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


def test_no_latex_names_what_to_install(programs: Path) -> None:
    for present in ("", "latexmk", "pdflatex"):
        for program in programs.iterdir():
            program.unlink()
        if present:
            install(programs, present)
        with pytest.raises(UserError, match=r"latexmk.*tectonic.*apt-get install latexmk"):
            typeset(Path("paper/main.tex"), Path("build"))


def test_latexmk_is_preferred_to_tectonic_and_both_find_sources_and_generated_files(programs: Path) -> None:
    tectonic = install(programs, "tectonic")
    typeset(Path("paper/main.tex"), Path("build"))
    assert {"search-path=build", "--keep-logs", "build", "paper/main.tex"} <= set(tectonic.read_text().splitlines())
    tectonic.unlink()
    latexmk = install(programs, "latexmk")
    install(programs, "pdflatex")
    typeset(Path("paper/main.tex"), Path("build"))
    assert not tectonic.exists()
    words = latexmk.read_text().splitlines()
    assert {"-halt-on-error", "-output-directory=build", "paper/main.tex"} <= set(words)
    assert words[-2:] == ["TEXINPUTS=paper:build:", "BIBINPUTS=paper:build:"]


def test_an_error_of_tectonic_leads_to_the_log(programs: Path) -> None:
    install(programs, "tectonic", status=12)
    with pytest.raises(UserError, match=r"paper/main\.tex: .*build/main\.log"):
        typeset(Path("paper/main.tex"), Path("build"))


latex = pytest.mark.skipif(
    not (shutil.which("latexmk") and shutil.which("pdflatex")), reason="needs latexmk with pdflatex"
)


@latex
def test_chapters_are_typeset_with_generated_files_in_another_folder(paper: Path, build: Path) -> None:
    """Numbers are looked up in the study, in text and in formulas; one that there is not prints n/a."""
    (paper / "main.tex").write_text(
        r"\documentclass{article}\input{preamble}\input{chapters}\begin{document}\chapters\end{document}"
    )
    preamble = (ROOT / "paper" / "preamble.tex").read_text()
    (paper / "preamble.tex").write_text(preamble)
    for study in ("first", "second"):
        text = r"Of \study: \num{slope/sgd}, $x^{\num{slope/sgd}}$, \num[second]{count}. "
        (paper / study / "text.tex").write_text(text)
    before = sorted(paper.rglob("*.tex"))
    (build / "chapters.tex").write_text(chapters_tex(paper, ["first", "second"], "50 % & more"))
    typeset(paper / "main.tex", build)
    text = " ".join(PdfReader(build / "main.pdf").pages[0].extract_text().split())
    assert "Of first: 1, x1, 1." in text and "Of second: n/a, xn/a, 1." in text
    assert sorted({*paper.rglob("*.tex")} - {build / "chapters.tex"}) == before  # LaTeX wrote nothing among the sources


@latex
def test_a_real_latex_error_ends_in_the_sentence_that_leads_to_it(tmp_path: Path) -> None:
    main = tmp_path / "main.tex"
    main.write_text("\\documentclass{article}\\begin{document}\\undefined\\end{document}\n")
    with pytest.raises(UserError, match=r"main\.log"):
        typeset(main, tmp_path)
    log = (tmp_path / "main.log").read_text(errors="replace")
    assert "! Undefined control sequence." in log.splitlines()
