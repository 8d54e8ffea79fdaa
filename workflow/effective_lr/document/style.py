"""The one style of all figures, in the paper and in notebooks."""

import os
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

matplotlib.use("Agg")

from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

ROOT = Path(__file__).parents[3]
COLUMN_WIDTH, TEXT_WIDTH = 3.3, 7.0  # inches
# The palette "colorblind" of seaborn, which would take two seconds to import.
PALETTE = (
    *("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc"),
    *("#ca9161", "#fbafe4", "#949494", "#ece133", "#56b4e9"),
)


def use() -> None:
    """Draw in the style from here on, and in nothing of a matplotlibrc of the user."""
    plt.style.use(["default", Path(__file__).with_name("style.mplstyle")])


def start() -> None:
    """What a notebook begins with: the style, on the screen; where Jupyter started in its folder, work in the root."""
    if Path.cwd().is_relative_to(ROOT / "notebooks"):
        os.chdir(ROOT)
    use()
    plt.rcParams["figure.dpi"] = 120
    pd.options.display.float_format = "{:.5g}".format


def sequential(count: int) -> list[tuple[float, ...]]:
    """So many colors in order, none of them too light to be seen."""
    return [colormaps["viridis_r"](place) for place in np.linspace(0, 1, count + 2)[1:-1]]


def annotate_empty(axis: Axes, text: str) -> None:
    """Write into a panel that has nothing to draw why that is so."""
    axis.set(xticks=[], yticks=[])
    axis.minorticks_off()
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", color="0.4", fontsize=7)


def few_ticks(axis: Axis, at: tuple[float, ...] = (1, 2, 5)) -> None:
    """Numbers at these multiples of powers of ten alone, on a logarithmic axis of about a decade."""
    axis.set_major_locator(LogLocator(subs=at))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def save_pdf(figure: Figure, path: Path) -> None:
    """The same bytes each time."""
    figure.savefig(path, metadata={"CreationDate": None}, transparent=True)
