"""What the frame of the paper, paper/main.tex, takes from its chapters: their list, all verdicts at a glance, and where
each number comes from.
"""

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


def origins(claims: Claims, runs: dict[str, dict[str, int]]) -> tuple[str, list[str]]:
    """For each claim the command that decides it, its number of runs, and its statistics, to which the numbers of the
    text link: LaTeX, and the statistics as <study>/<name>. One that several claims have stands with the first.
    """
    lines, statistics = [], []
    for study, decided in claims.items():
        lines.append(rf"\paragraph{{{latex(load(study).title)}.}}")
        for name, claim in decided.items():
            rests_on = f"{runs[study][name]} runs" if runs[study][name] else "float64 checks alone"
            lines.append(rf"\par\noindent\textbf{{{name}}} \texttt{{make claim\_{name}}}, {rests_on}:")
            measured = dict.fromkeys(part["statistic"] for part in claim["parts"] + claim["explored"])
            new = [one for one in measured if f"{study}/{one}" not in statistics]
            statistics += [f"{study}/{one}" for one in new]
            commands = {one: rf"\origin{{{study}/{one}}}" if one in new else r"\texttt" for one in measured}
            lines.append(", ".join(f"{command}{{{latex(one)}}}" for one, command in commands.items()) + ".")
    return "\n".join([*lines, ""]), statistics


def write(
    root: Path,
    studies: list[str],
    paths: list[Path],
    runs: dict[str, dict[str, int]],
    scale: str,
    watermark: str,
    build: Path,
) -> None:
    """Write the list of chapters, the numbers of the frame, the overview and the origins of numbers into the folder of
    generated files.

    `paths` are the verdicts, <study>/claims/<id>.json, and `runs` says how many runs each rests on.
    """
    claims: Claims = {study: {} for study in studies}
    for path in paths:
        claims[path.parent.parent.name][path.stem] = json.loads(path.read_text())
    (build / FRAME).mkdir(parents=True, exist_ok=True)
    (build / "chapters.tex").write_text(chapters_tex(root / "paper", studies, watermark))
    verdicts = [claim["verdict"] for decided in claims.values() for claim in decided.values()]
    numbers = {"scale": latex(scale), "studies": str(len(studies)), **count_verdicts(verdicts)}
    caption = r"Every claim and its verdict at this scale. The chapters give statistics, intervals and tolerances."
    text, statistics = origins(claims, runs)
    (build / FRAME / "origins.tex").write_text(text)
    links = "".join(rf"\defineorigin{{{name}}}" + "\n" for name in statistics)
    (build / FRAME / "numbers.tex").write_text(to_latex(FRAME, numbers, {"overview": caption}) + links)
    (build / FRAME / "overview.tex").write_text(overview(claims).latex())
