"""The one style of all figures."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, NullFormatter

COLUMN_WIDTH, TEXT_WIDTH = 3.3, 7.0  # inches
PALETTE = sns.color_palette("colorblind")


def use() -> None:
    """Draw in the style from here on."""
    plt.style.use(Path(__file__).with_name("style.mplstyle"))


def say(axis: Axes, text: str) -> None:
    """What a panel says that has nothing to draw."""
    axis.set(xticks=[], yticks=[])
    axis.minorticks_off()
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", color="0.4", fontsize=7)


def few_ticks(axis: Axis, at: tuple[float, ...] = (1, 2, 5)) -> None:
    """Numbers at these multiples of powers of ten alone, on a logarithmic axis of about a decade."""
    axis.set_major_locator(LogLocator(subs=at))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
