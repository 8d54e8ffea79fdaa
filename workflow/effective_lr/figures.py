"""The figures of the paper: each a pure function of tidy tables (analysis.py) that returns a Matplotlib figure."""

import argparse
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter

from effective_lr import theory
from effective_lr.analysis import Tables, dynamics, equilibrium_ratios, error_or_chance, plane
from effective_lr.notation import NAMES, number

COLUMN_WIDTH, TEXT_WIDTH = 3.3, 7.0  # inches
PALETTE = sns.color_palette("colorblind")


def figure_1(tables: Tables) -> Figure:
    """Norm and effective learning rate over training for several λ, with the predicted equilibrium."""
    metrics, runs = dynamics(tables["plane_sgd"])
    predicted = equilibrium_ratios(metrics, runs).groupby("l2")["predicted"].mean()
    penalties = sorted(runs["l2"].unique())
    colors = dict(zip(penalties, ["black", *sns.color_palette("viridis_r", len(penalties))[1:]], strict=True))
    layers = metrics[metrics["layer"] != ""].merge(runs[["run_id", "l2"]], on="run_id")

    figure, axes = plt.subplots(2, 1, figsize=(COLUMN_WIDTH, 3.6), sharex=True)
    for axis, quantity, label, root in [
        (axes[0], "norm_squared", r"norm $\|w\|$", True),
        (axes[1], "effective_lr", r"effective learning rate $\eta_{\mathrm{eff}}$", False),
    ]:
        curves = layers[layers["quantity"] == quantity].groupby(["l2", "step", "run_id"])["value"].median()
        curves = curves.groupby(["l2", "step"]).mean()
        for l2 in penalties:
            curve = curves[l2] ** 0.5 if root else curves[l2]
            axis.plot(curve.index, curve, color=colors[l2], label=f"${number(l2)}$")
            if l2 in predicted:
                last = curve.index.max()
                level = (runs["lr"].iloc[0] / predicted[l2]) ** 0.5 if root else predicted[l2]
                ends = [last * 0.35, last * 1.25]
                axis.plot(ends, [level] * 2, color=colors[l2], linestyle=(0, (2, 1.5)), linewidth=1)
        axis.set(xscale="log", yscale="log", ylabel=label)
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())
    axes[1].set_xlabel("training step")
    axes[0].legend(title=r"$\lambda$", ncols=2, loc="lower left", labelspacing=0.3, columnspacing=1)
    return figure


def figure_2(tables: Tables) -> Figure:
    """Test error over the (λ, η) plane, with lines along which the predicted effective learning rate is constant."""
    figure, axes = plt.subplots(1, 3, figsize=(TEXT_WIDTH, 2.5))
    planes = [tables[f"plane_{optimizer}"].runs for optimizer in ("sgd", "nesterov", "adam")]
    lowest = 100 * min(error_or_chance(runs).min() for runs in planes)
    for axis, runs in zip(axes, planes, strict=True):
        image = draw_plane(axis, runs, lowest)
    axes[0].set_ylabel(r"learning rate $\eta$")
    bar = figure.colorbar(image, ax=list(axes), aspect=25, pad=0.01, label="test error (%)")
    bar.outline.set_visible(False)
    ticks = [tick for tick in (12, 15, 20, 30, 50, 90) if tick >= lowest]
    bar.set_ticks(ticks, labels=[str(tick) for tick in ticks], minor=False)
    bar.minorticks_off()
    return figure


def draw_plane(axis: Axes, runs: pd.DataFrame, lowest: float) -> Any:
    """One optimizer's plane, a cell for each (λ, η), λ = 0 set apart on the left. Errors in percent."""
    optimizer = runs["optimizer"].iloc[0]
    errors = 100 * plane(runs)
    rates, penalties = errors.index.to_numpy(), errors.columns.to_numpy()
    columns = np.arange(len(penalties)) + np.where(penalties == 0, -0.3, 0.0)
    scale = matplotlib.colors.LogNorm(lowest, 90)
    for j, column in enumerate(columns):
        image = axis.pcolormesh(
            [column - 0.5, column + 0.5],
            np.arange(len(rates) + 1) - 0.5,
            errors.iloc[:, [j]].to_numpy(),
            norm=scale,
            cmap="viridis_r",
        )
        for i, error in enumerate(errors.iloc[:, j]):
            dark = scale(min(error, 90)) > 0.5
            axis.text(
                column,
                i,
                f"{error:.0f}",
                ha="center",
                va="center",
                fontsize=6,
                color="white" if dark else "black",
            )

    # Grids are geometric, so rows and columns are linear in log η and log λ, and the diagonals are straight lines.
    positive = penalties[penalties > 0]
    left = columns[-len(positive)] - 0.5
    penalised = Rectangle((left, -0.5), len(positive), len(rates), transform=axis.transData)
    slope = theory.diagonal_slope(optimizer)
    ends = np.array([positive[0] / 100, positive[-1] * 100])
    middle = len(rates) // 2
    between = np.sqrt(positive[1] / positive[0])  # half a column to the right, where no number stands
    for l2 in positive[::2] * between:
        lrs = rates[middle] * (ends / l2) ** -slope
        x = columns[-len(positive)] + np.log(ends / positive[0]) / np.log(positive[1] / positive[0])
        y = np.log(lrs / rates[0]) / np.log(rates[1] / rates[0])
        (line,) = axis.plot(x, y, color="black", linewidth=0.6, alpha=0.6)
        line.set_clip_path(penalised)
    axis.set(
        xlim=(columns[0] - 0.5, columns[-1] + 0.5),
        ylim=(-0.5, len(rates) - 0.5),
        title=NAMES[optimizer],
        xlabel=r"penalty $\lambda$",
    )
    shown = [0, *range(len(penalties) - len(positive) + 1, len(penalties), 2)]
    axis.set_xticks(columns[shown], [f"${number(penalties[k])}$" for k in shown])
    axis.set_yticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return image


def figure_3(tables: Tables) -> Figure:
    """Test error against λ at one learning rate, with and without ‖w‖ = 1 after each step."""
    figure, axes = plt.subplots(1, 3, figsize=(TEXT_WIDTH, 2.2), sharey=True)
    for axis, optimizer in zip(axes, ("sgd", "nesterov", "adam"), strict=True):
        held = tables[f"projection_{optimizer}"].runs
        runs = tables.runs(f"projection_{optimizer}", f"plane_{optimizer}")
        lr = held["lr"].iloc[0]
        runs = runs[runs["lr"] == lr].assign(error=100 * error_or_chance(runs))
        zero = runs.loc[runs["l2"] > 0, "l2"].min() / 10  # where λ = 0 is drawn on the log axis
        for projected, color, marker, label in [
            (False, PALETTE[0], "o", r"$\|w\|$ free"),
            (True, PALETTE[1], "s", r"$\|w\|=1$"),
        ]:
            points = runs[runs["projected"] == projected]
            mean = points.groupby("l2")["error"].mean()
            axis.plot(points["l2"].replace(0, zero), points["error"], marker, color=color, markersize=2, alpha=0.5)
            axis.plot(mean.index[mean.index > 0], mean[mean.index > 0], color=color, marker=marker, label=label)
            axis.plot([zero], [mean[0]], color=color, marker=marker)
        if optimizer != "adam":
            critical = theory.critical_l2(optimizer, lr)
            axis.axvline(float(critical), color="0.4", linestyle=":", linewidth=1)
            axis.text(
                float(critical),
                0.01,
                r"$\lambda_c$ ",
                transform=axis.get_xaxis_transform(),
                va="bottom",
                ha="right",
            )
        axis.axvspan(zero / 2, zero * 2, color="0.92", zorder=0, linewidth=0)
        axis.set(
            xscale="log",
            xlabel=r"penalty $\lambda$",
            title=rf"{NAMES[optimizer]}, $\eta={number(lr)}$",
            ylim=(0, 100),
        )
        ticks = [tick for tick in 10.0 ** np.arange(-6, 2) if zero * 3 < tick < runs["l2"].max() * 2][::-2][::-1]
        axis.set_xticks([zero, *ticks], ["0", *(f"$10^{{{round(np.log10(tick))}}}$" for tick in ticks)])
        axis.minorticks_off()
    axes[0].set_ylabel("test error (%)")
    axes[0].legend(loc="upper left", bbox_to_anchor=(0.12, 1.0))
    return figure


FIGURES = {"figure_1": figure_1, "figure_2": figure_2, "figure_3": figure_3}


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw a figure.")
    parser.add_argument("figure", choices=FIGURES)
    parser.add_argument("--tables", type=Path, nargs="+", required=True, help="tables of the experiments")
    parser.add_argument("--output", type=Path, required=True, help="PDF to write")
    arguments = parser.parse_args()
    plt.style.use(Path(__file__).with_name("style.mplstyle"))
    figure = FIGURES[arguments.figure](Tables(arguments.tables))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.output, metadata={"CreationDate": None}, transparent=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
