"""The figure of the paper around its chapters: every test at a glance."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from effective_lr.document import style
from effective_lr.document.overview import read_claims
from effective_lr.document.style import PALETTE, TEXT_WIDTH
from effective_lr.engine.inputs import Layout
from effective_lr.engine.study import Study, load
from effective_lr.evidence import verdicts
from effective_lr.evidence.verdicts import Claims, label_of, statistics_of

SHOWN_KINDS = {verdicts.REPRODUCED: PALETTE[2], verdicts.NOT_REPRODUCED: PALETTE[3], verdicts.UNDECIDED: "0.45"}
COLORS = dict.fromkeys(verdicts.VERDICTS, "0.45") | SHOWN_KINDS | {verdicts.IN_PART: PALETTE[1]}
REACH = 2.6  # of an axis, in units of the tolerance
ROW, HEIGHT = 0.118, 8.7  # inches, at most
LONGEST = 46  # characters of a label


class Line(NamedTuple):
    """A heading, or a row of tests."""

    text: str
    tests: Sequence[dict[str, Any]] = ()
    color: str = "0.25"
    weight: str = "normal"


def write_verdicts(layout: Layout, output: Path) -> None:
    """Draw every test of every claim, by study and id: its value and 90 % interval in units of its own tolerance."""
    style.use()
    lines = [line for study, decided in read_claims(layout).items() for line in lines_of(load(study), decided)]
    half = (len(lines) + 1) // 2
    figure, axes = plt.subplots(1, 2, figsize=(TEXT_WIDTH, min(ROW * half + 0.45, HEIGHT)))
    for axis, column in zip(axes, (lines[:half], lines[half:]), strict=True):
        draw_column(axis, column, half)
    handles = [Line2D([], [], color=color, marker="o", markersize=3, label=kind) for kind, color in SHOWN_KINDS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    style.save_pdf(figure, output)


def lines_of(study: Study, decided: Claims) -> list[Line]:
    """The rows of a study: a heading for each claim, and a row for each test; float64 checks share one."""
    lines, statistics = [Line(study.title, color="black", weight="bold")], statistics_of(study)
    for name, claim in decided.items():
        lines.append(Line(f"{name}  {claim['title']}: {claim['verdict']}", color=COLORS[claim["verdict"]]))
        if checks := [part for part in claim["parts"] if part["statistic"] not in statistics]:
            lines.append(Line(f"{len(checks)} exact statements, float64", checks))
        for part in claim["parts"]:
            if part["statistic"] in statistics:
                subject = study.words.get(part["subject"], part["subject"].replace("_", " "))
                lines.append(Line(as_label(f"{subject}: {label_of(study, part['statistic'])[0]}"), [part]))
    return lines


def as_label(text: str) -> str:
    """A label of LaTeX for Matplotlib; of a long one the beginning."""
    text = text.replace(r"\%", "%").replace(r"\,", " ").replace("--", "–").replace("~", " ")
    text = re.sub(r"\\text(tt|bf)?\{([^}]*)\}", r"\2", text)
    text = re.sub(r"\\frac(\w)(\w)", r"\\frac{\1}{\2}", text)
    if len(re.sub(r"\\[a-z]+|[${}^_]", "", text)) <= LONGEST:
        return text
    cut = text[: LONGEST + text[:LONGEST].count("\\") * 4]
    return (cut if cut.count("$") % 2 == 0 else cut[: cut.rindex("$")]).rstrip(" ,:") + "…"


def draw_column(axis: Axes, lines: list[Line], rows: int) -> None:
    axis.axvspan(-1, 1, color="0.92", linewidth=0)
    axis.axvline(0, color="0.8", linewidth=0.5)
    for row, line in enumerate(lines):
        left, size, side = (-1.06, 4.5, "right") if line.tests else (-3.1, 5.5, "left")
        text = axis.text(REACH * left, row, line.text, size=size, ha=side, va="center", clip_on=False)
        text.set(color=line.color, weight=line.weight)
        for part in line.tests:
            draw_interval(axis, row, part)
    axis.set(xlim=(-REACH, REACH), ylim=(rows - 0.5, -0.5), yticks=[], xticks=[-1, 0, 1])
    axis.spines["left"].set_visible(False)
    axis.tick_params(labelsize=5)
    axis.set_xlabel("in units of the tolerance", fontsize=6)


def draw_interval(axis: Axes, row: int, part: dict[str, Any]) -> None:
    """The interval of a test; an arrow where its value leaves the axis, a cross where it has none."""
    color = COLORS[part["verdict"]]
    if part["value"] is None:
        axis.plot(0, row, "x", color=color, markersize=2.5)
        return
    numbers = [part["value"] if part[end] is None else part[end] for end in ("value", "low", "high")]
    value, *ends = (in_tolerances(number, part["within"]) for number in numbers)
    axis.plot(np.clip(ends, -REACH, REACH), [row, row], color=color, linewidth=1)
    if abs(value) <= REACH:
        axis.plot(value, row, "o", color=color, markersize=1.8)
    else:
        axis.plot(np.sign(value) * REACH * 0.97, row, ">" if value > 0 else "<", color=color, markersize=2.5)


def in_tolerances(value: float, within: list[float | None]) -> float:
    """A value on the scale on which its tolerance is the band from −1 to 1.

    Where a tolerance has one bound, this is −1 or 1, and what is far inside tends to the other end; outside, a distance
    as large as the bound is a unit.
    """
    low, high = within
    if low == high:
        return 0.0 if value == high else float(np.sign(value - (high or 0.0))) * 2 * REACH
    if low == 0 and high is not None:
        return value / high
    if low is not None and high is not None:
        return (value - (low + high) / 2) / ((high - low) / 2)
    side, bound = (1, high) if low is None else (-1, low)
    assert bound is not None
    inside = side * (bound - value) / abs(bound or 1.0)
    return side * (1 - (2 * inside / (1 + inside) if inside > 0 else inside))
