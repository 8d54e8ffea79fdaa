"""What the paper is made of, and how it is typeset: by latexmk, by tectonic, or by neither."""

import shutil
from pathlib import Path

import pytest
from pypdf import PdfReader

from effective_lr.document.macros import to_latex
from effective_lr.document.manuscript import chapters_tex, scan, typeset
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


def test_sources_are_followed_and_floats_numbered_through_the_chapters_and_a_circle_ends(paper: Path) -> None:
    def sources(*studies: str) -> list[str]:
        found = scan(paper, list(studies), paper.parent).sources
        return [str(Path(source).relative_to(paper)) for source in found]

    first, last = ["main.tex", "preamble.tex", "first/text.tex", "first/theory.tex"], ["references.bib"]
    assert sources("first", "second") == [*first, "second/text.tex", *last, "first/appendix.tex"]
    assert sources("first") == [*first, *last, "first/appendix.tex"]
    manuscript = scan(paper, ["second", "first"], paper.parent)
    figures = {name: (one.study, one.item) for name, one in manuscript.numbered("figure").items()}
    assert figures == {"figure_1": ("second", "plane"), "figure_2": ("second", "time"), "figure_3": ("first", "plane")}
    tables = [(one.study, one.item) for one in manuscript.numbered("table").values()]
    assert tables == [("paper", "overview"), ("first", "exact"), ("first", "settings")]
    (paper / "first/theory.tex").write_text("\\input{first/text}\n")
    assert sources("first").count("first/text.tex") == 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (r"\widefigure{\results}", "macro"),
        (r"\input{first/practice}", "paper/first/practice.tex"),
        (r"\bibliography{missing}", "paper/missing.bib"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused_with_its_place(paper: Path, line: str, expected: str) -> None:
    (paper / "first/text.tex").write_text(f"{FIRST}{line}\n")
    with pytest.raises(UserError) as error:
        scan(paper, ["first"], paper.parent)
    text = str(error.value)
    assert text.startswith(f"paper/first/text.tex:4: {line}: ") and expected in text and "\n" not in text


def install(folder: Path, name: str, status: int = 0) -> Path:
    """A stub that notes each word it is given and the search paths. Returns its notes."""
    notes = folder / f"{name}.notes"
    (folder / name).write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" "TEXINPUTS=$TEXINPUTS" "BIBINPUTS=$BIBINPUTS" >{notes}\nexit {status}\n'
    )
    (folder / name).chmod(0o755)
    return notes


def test_latexmk_is_preferred_to_tectonic_and_without_both_the_error_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # alone
    main, build = Path("paper/main.tex"), Path("build")
    install(tmp_path, "pdflatex")
    with pytest.raises(UserError, match=r"latexmk.*tectonic.*apt-get install latexmk"):
        typeset(main, build)
    tectonic = install(tmp_path, "tectonic")
    typeset(main, build)
    assert {"search-path=build", "--keep-logs", "build", "paper/main.tex"} <= set(tectonic.read_text().splitlines())
    install(tmp_path, "tectonic", status=12)
    with pytest.raises(UserError, match=r"paper/main\.tex: LaTeX failed; build/main\.log"):
        typeset(main, build)
    latexmk = install(tmp_path, "latexmk")
    typeset(main, build)
    words = latexmk.read_text().splitlines()
    assert {"-halt-on-error", "-output-directory=build", "paper/main.tex"} <= set(words)
    assert words[-2:] == ["TEXINPUTS=paper:build:", "BIBINPUTS=paper:build:"]


@pytest.mark.skipif(not (shutil.which("latexmk") and shutil.which("pdflatex")), reason="needs latexmk with pdflatex")
def test_numbers_are_looked_up_in_their_study_and_an_unknown_one_is_an_error_with_its_place(
    paper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(paper.parent)
    build = Path("build")
    (paper / "main.tex").write_text(
        r"\documentclass{article}\input{preamble}\input{chapters}\begin{document}\chapters\end{document}"
    )
    shutil.copy(ROOT / "paper" / "preamble.tex", paper)
    for study, name in {"paper": "studies", "first": "slope/sgd", "second": "count"}.items():
        (build / study).mkdir(parents=True)
        (build / study / "numbers.tex").write_text(to_latex(study, {"scale": "smoke", name: "1"}, {}))
    (build / "chapters.tex").write_text(chapters_tex(paper, ["first", "second"], "50 % & more"))
    for study, name in {"first": "slope/sgd", "second": "count"}.items():
        text = rf"Of \study: \num{{{name}}}, $x^{{\num{{{name}}}}}$, \num[second]{{count}}, \num[third]{{count}}. "
        (paper / study / "text.tex").write_text(text)
    before = sorted(paper.rglob("*"))
    typeset(paper / "main.tex", build)
    text = " ".join(PdfReader(build / "main.pdf").pages[0].extract_text().split())
    assert "Of first: 1, x1, 1, n/a." in text and "Of second: 1, x1, 1, n/a." in text
    assert sorted(paper.rglob("*")) == before  # LaTeX wrote nothing among the sources

    for wrong, expected in {
        r"\num{count}": r"\num{count}: no such number in first/numbers.tex",
        r"\num[second]{slope/sgd}": r"\num{slope/sgd}: no such number in second/numbers.tex",
        r"\undefined": "Undefined control sequence",
    }.items():
        (paper / "first/text.tex").write_text(f"% \\num{{old}}\nIt is {wrong}.\n")
        with pytest.raises(UserError) as error:
            typeset(paper / "main.tex", build)
        assert str(error.value) == f"paper/first/text.tex:2: {expected}; build/main.log has the details"
