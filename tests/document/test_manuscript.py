"""What the paper is made of, and how it is typeset: by latexmk, by tectonic, or by neither."""

import shutil
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


def test_sources_are_followed_through_the_chapters(paper: Path) -> None:
    chapter = ["first/text.tex", "first/theory.tex"]
    assert scanned(paper, "first", "second") == [
        "main.tex",
        "preamble.tex",
        *chapter,
        "second/text.tex",
        "references.bib",
        "first/appendix.tex",
    ]
    assert "second/text.tex" not in scanned(paper, "first")


def test_floats_are_numbered_in_their_order_over_all_chapters(paper: Path) -> None:
    manuscript = scan(paper, ["second", "first"], paper.parent)
    figures = {name: (one.study, one.item) for name, one in manuscript.numbered("figure").items()}
    assert figures == {"figure_1": ("second", "plane"), "figure_2": ("second", "time"), "figure_3": ("first", "plane")}
    tables = [(one.study, one.item) for one in manuscript.numbered("table").values()]
    assert tables == [("paper", "overview"), ("first", "exact"), ("first", "settings")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (r"\widefigure{\results}", "macro"),
        (r"\input{first/practice}", "paper/first/practice.tex"),
        (r"\bibliography{missing}", "paper/missing.bib"),
        (r"\widefigure{plane}", "paper/first/text.tex:2"),  # placed twice
    ],
)
def test_a_name_that_leads_nowhere_or_twice_is_refused_with_its_place(paper: Path, line: str, expected: str) -> None:
    (paper / "first/text.tex").write_text(FIRST + line + "\n")
    with pytest.raises(UserError) as error:
        scan(paper, ["first"], paper.parent)
    assert str(error.value).startswith(f"paper/first/text.tex:4: {line}: ") and expected in str(error.value)
    assert "\n" not in str(error.value)


def test_a_paper_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"paper/main\.tex"):
        scan(tmp_path / "paper", [], tmp_path)


def test_inclusion_in_a_circle_ends(paper: Path) -> None:
    (paper / "first/theory.tex").write_text("\\input{first/text}\n")
    assert scanned(paper, "first").count("first/text.tex") == 1


# Numbers


@pytest.fixture
def build(paper: Path) -> Path:
    """Generated numbers of the frame and of both chapters."""
    folder = paper / "build"
    for study, names in {"paper": ["studies"], "first": ["slope/sgd"], "second": ["count"]}.items():
        (folder / study).mkdir(parents=True)
        lines = [rf"\definenumber{{{study}/{name}}}{{1}}" for name in names]
        (folder / study / "numbers.tex").write_text("\n".join(lines))
    return folder


def test_known_numbers_are_accepted(paper: Path, build: Path) -> None:
    require_known_numbers(paper, ["first", "second"], build, paper.parent)


@pytest.mark.parametrize("number", [r"\num{slope/adam}", r"\num{count}", r"\num[second]{slope/sgd}"])
def test_an_unknown_number_is_refused_with_its_place(paper: Path, build: Path, number: str) -> None:
    (paper / "first/text.tex").write_text(f"{FIRST}% \\num{{old}}\nIt is {number}.\n")
    with pytest.raises(UserError) as error:
        require_known_numbers(paper, ["first", "second"], build, paper.parent)
    assert str(error.value).startswith(f"paper/first/text.tex:5: {number}: ")
    study = "second" if "[" in number else "first"
    assert f"{study}/numbers.tex" in str(error.value) and "\n" not in str(error.value)


def test_a_number_of_a_study_that_lacks_the_scale_is_no_mistake(paper: Path, build: Path) -> None:
    require_known_numbers(paper, ["first"], build, paper.parent)


# How it is typeset


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
    with pytest.raises(UserError, match=r"latexmk.*tectonic.*apt-get install latexmk"):
        typeset(Path("paper/main.tex"), Path("build"))


def test_latexmk_is_preferred_and_finds_sources_and_generated_files(programs: Path) -> None:
    install(programs, "pdflatex")
    tectonic, latexmk = install(programs, "tectonic"), install(programs, "latexmk")
    typeset(Path("paper/main.tex"), Path("build"))
    assert not tectonic.exists()
    words = latexmk.read_text().splitlines()
    assert {"-halt-on-error", "-output-directory=build", "paper/main.tex"} <= set(words)
    assert words[-2:] == ["TEXINPUTS=paper:build:", "BIBINPUTS=paper:build:"]


def test_tectonic_serves_where_latexmk_is_absent(programs: Path) -> None:
    notes = install(programs, "tectonic")
    typeset(Path("paper/main.tex"), Path("build"))
    assert {"search-path=build", "--keep-logs", "build", "paper/main.tex"} <= set(notes.read_text().splitlines())


@pytest.mark.parametrize("program", ["latexmk", "tectonic"])
def test_a_latex_error_says_where_to_look(programs: Path, program: str) -> None:
    install(programs, "pdflatex")
    install(programs, program, status=12)
    with pytest.raises(UserError, match=r"paper/main\.tex: .*build/main\.log"):
        typeset(Path("paper/main.tex"), Path("build"))


latex = pytest.mark.skipif(
    not (shutil.which("latexmk") and shutil.which("pdflatex")), reason="needs latexmk with pdflatex"
)


@latex
def test_chapters_are_typeset_with_generated_files_in_another_folder(paper: Path, build: Path) -> None:
    (paper / "main.tex").write_text(
        "\\documentclass{article}\\input{preamble}\\input{chapters}\\begin{document}\\chapters\\end{document}\n"
    )
    (paper / "preamble.tex").write_text(
        "\\newcommand{\\study}{}\\newcommand{\\definenumber}[2]{}"
        "\\newcommand{\\chapterof}[2]{\\renewcommand{\\study}{#1}\\input{#1/#2}}\n"
    )
    for study in ("first", "second"):
        (paper / study / "text.tex").write_text("Of \\study: \\input{\\study/made}\n")
        (build / study / "made.tex").write_text("1.5\n")
    before = sorted(paper.rglob("*.tex"))
    (build / "chapters.tex").write_text(chapters_tex(paper, ["first", "second"], "50 % & more"))
    typeset(paper / "main.tex", build)
    assert (build / "main.pdf").read_bytes().startswith(b"%PDF")
    assert sorted({*paper.rglob("*.tex")} - {build / "chapters.tex"}) == before  # LaTeX wrote nothing among the sources


@latex
def test_a_number_links_to_where_it_comes_from(tmp_path: Path) -> None:
    """In text a statistic does, in a formula and without an origin no number does; all are printed."""
    main = tmp_path / "main.tex"
    main.write_text(
        r"""\documentclass{article}\input{preamble}\begin{document}
        \definenumber{first/slope/sgd}{\ensuremath{1.25}}\definenumber{first/count}{\ensuremath{7}}
        \defineorigin{first/slope}\renewcommand{\study}{first}
        \num{slope/sgd}, $x^{\num{slope/sgd}}$, \num{count}, \num[second]{slope/sgd}\newpage
        \origin{first/slope}{slope}\end{document}"""
    )
    shutil.copy(ROOT / "paper" / "preamble.tex", tmp_path)
    typeset(main, tmp_path)
    pdf = PdfReader(tmp_path / "main.pdf")
    assert pdf.pages[0].extract_text().split() == ["1.25,", "x1.25,", "7,", "n/a", "1"]
    [link] = [one.get_object() for one in pdf.pages[0]["/Annots"]]
    target = str(link["/A"]["/D"])
    assert target == "origin:first/slope"
    assert pdf.get_destination_page_number(pdf.named_destinations[target]) == 1


@latex
def test_a_real_latex_error_ends_in_the_sentence_that_leads_to_it(tmp_path: Path) -> None:
    main = tmp_path / "main.tex"
    main.write_text("\\documentclass{article}\\begin{document}\\undefined\\end{document}\n")
    with pytest.raises(UserError, match=r"main\.log"):
        typeset(main, tmp_path)
    log = (tmp_path / "main.log").read_text(errors="replace")
    assert "! Undefined control sequence." in log.splitlines()
