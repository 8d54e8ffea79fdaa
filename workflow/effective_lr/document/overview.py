"""The paper around its chapters, paper/main.tex: the list of chapters, all verdicts at a glance, and the PDF."""

from typing import Any

from effective_lr.document.macros import count_verdicts, to_latex
from effective_lr.document.manuscript import FRAME, chapters_tex, typeset
from effective_lr.document.notation import latex
from effective_lr.document.table import Table, wide
from effective_lr.engine.inputs import Layout
from effective_lr.engine.storage import read_json
from effective_lr.engine.study import load
from effective_lr.evidence.verdicts import Claims

CAPTIONS = {
    "overview": "Every claim and its verdict at this scale. The chapters give statistics, intervals and tolerances.",
    "verdicts": r"Every test at this scale: its value and 90\,\% interval, scaled so that its tolerance is the band "
    "from $-1$ to $1$. If a tolerance has one bound, values far inside approach the other end of the band. Arrows: "
    "beyond the axis. Crosses: no value. A claim is reproduced if all of its tests are.",
}


def overview(claims: dict[str, Claims]) -> Table:
    """Every claim of every study with its verdict."""
    rows: list[list[Any]] = []
    for study, decided in claims.items():
        if rows:
            rows.append([])
        rows.append([wide(rf"\textbf{{{latex(load(study).title)}}}", 3)])
        rows += [[name, latex(claim["title"]), claim["verdict"]] for name, claim in decided.items()]
    return Table("lll", ["", "Claim", "Verdict"], rows)


def read_claims(layout: Layout) -> dict[str, Claims]:
    """The claims of all chapters with their verdicts."""
    return {study: read_json(layout.claims(study)) for study in layout.chapters}


def write_paper(layout: Layout) -> None:
    """Write what main.tex takes from the chapters, and typeset the paper. Raises UserError where LaTeX fails."""
    claims, build, paper = read_claims(layout), layout.build, layout.root / "paper"
    studies = list(layout.chapters)
    watermarks = [chapter.scale.watermark for chapter in layout.chapters.values() if chapter.scale.watermark]
    numbers = {
        "scale": latex(layout.config.scale_name),
        "studies": str(len(studies)),
        **count_verdicts(*claims.values()),
    }
    (build / FRAME / "tables").mkdir(parents=True, exist_ok=True)
    (build / "chapters.tex").write_text(chapters_tex(paper, studies, "".join(watermarks[:1])), encoding="utf-8")
    (build / FRAME / "numbers.tex").write_text(to_latex(FRAME, numbers, CAPTIONS), encoding="utf-8")
    (build / FRAME / "tables" / "overview.tex").write_text(overview(claims).latex(), encoding="utf-8")
    typeset(paper / "main.tex", build)
