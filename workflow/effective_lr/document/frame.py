"""What the frame of the paper, paper/main.tex, takes from its chapters: their list, and all verdicts at a glance."""

import json
from pathlib import Path
from typing import Any

from effective_lr.document.manuscript import FRAME, chapters_tex
from effective_lr.document.notation import latex
from effective_lr.document.numbers import count_verdicts, to_latex
from effective_lr.document.table import Span, Table
from effective_lr.engine.study import load

Claims = dict[str, dict[str, dict[str, Any]]]  # by study and id


def overview(claims: Claims) -> Table:
    """Every claim of every study with its verdict."""
    rows: list[list[Any]] = []
    for study, decided in claims.items():
        if rows:
            rows.append([])
        rows.append([Span(rf"\textbf{{{latex(load(study).title)}}}", 3)])
        rows += [[name, latex(claim["title"]), claim["verdict"]] for name, claim in decided.items()]
    return Table("lll", ["", "Claim", "Verdict"], rows)


def write(root: Path, studies: list[str], paths: list[Path], scale: str, watermark: str, build: Path) -> None:
    """Write the list of chapters, the numbers of the frame and the overview into the folder of generated files.

    `paths` are the verdicts, <study>/claims/<id>.json.
    """
    claims: Claims = {study: {} for study in studies}
    for path in paths:
        claims[path.parent.parent.name][path.stem] = json.loads(path.read_text())
    (build / FRAME).mkdir(parents=True, exist_ok=True)
    (build / "chapters.tex").write_text(chapters_tex(root / "paper", studies, watermark))
    verdicts = [claim["verdict"] for decided in claims.values() for claim in decided.values()]
    numbers = {"scale": latex(scale), "studies": str(len(studies)), **count_verdicts(verdicts)}
    caption = r"Every claim and its verdict at this scale. The chapters give statistics, intervals and tolerances."
    (build / FRAME / "numbers.tex").write_text(to_latex(FRAME, numbers, {"overview": caption}))
    (build / FRAME / "overview.tex").write_text(overview(claims).latex())
