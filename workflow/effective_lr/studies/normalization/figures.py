"""The figures of the chapter: each a pure function of tidy tables that returns a Matplotlib figure."""

from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter

from effective_lr.document.notation import number
from effective_lr.document.style import COLUMN_WIDTH, PALETTE, TEXT_WIDTH
from effective_lr.evidence.tidy import Tables
from effective_lr.studies.normalization import theory
from effective_lr.studies.normalization.analysis import (
    PLANES,
    dynamics,
    equilibrium_by_layer,
    error_or_chance,
    late_layers,
)
from effective_lr.studies.normalization.analysis import plane as plane_of
from effective_lr.studies.normalization.words import NAMES, NORMALIZATIONS

COLORS = dict(zip(PLANES, PALETTE, strict=False))
MARKERS = dict(zip(PLANES, "osD^v", strict=True))


def dynamics_over_time(tables: Tables) -> Figure:
    """Norm and effective learning rate over training for several λ, with the predicted equilibrium."""
    metrics, runs = dynamics(tables["plane_sgd"])
    medians = equilibrium_by_layer(metrics, runs).groupby(["l2", "run_id"])[
        ["predicted_norm", "predicted_effective_lr"]
    ]
    predicted = medians.median().groupby("l2").mean()
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
            if l2 in predicted.index:
                last = curve.index.max()
                level = predicted.loc[l2, "predicted_norm" if root else "predicted_effective_lr"]
                ends = [last * 0.35, last * 1.25]
                axis.plot(ends, [level] * 2, color=colors[l2], linestyle=(0, (2, 1.5)), linewidth=1)
        axis.set(xscale="log", yscale="log", ylabel=label)
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())
    axes[1].set_xlabel("training step")
    axes[0].legend(title=r"$\lambda$", ncols=2, loc="upper left", labelspacing=0.3, columnspacing=1)
    return figure


def plane(tables: Tables) -> Figure:
    """Test error over each (λ, η) plane, with lines along which the predicted effective learning rate is constant."""
    runs = tables.runs()
    planes = [
        runs[(runs["normalization"] == normalization) & (runs["optimizer"] == optimizer)]
        for normalization in NORMALIZATIONS
        for optimizer in PLANES
    ]
    planes = [plane for plane in planes if len(plane)]
    columns = 4
    rows = -(-len(planes) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(TEXT_WIDTH, 0.4 + 1.75 * rows), squeeze=False)
    lowest = 100 * min(error_or_chance(runs).min() for runs in planes)
    for axis, runs in zip(axes.flat, planes, strict=False):
        image = draw_plane(axis, runs, lowest)
    for axis in axes.flat[len(planes) :]:
        axis.set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel(r"learning rate $\eta$")
    bar = figure.colorbar(image, ax=list(axes.flat), aspect=25, pad=0.01, label="test error (%)")
    bar.outline.set_visible(False)
    ticks = [tick for tick in (12, 15, 20, 30, 50, 90) if tick >= lowest]
    bar.set_ticks(ticks, labels=[str(tick) for tick in ticks], minor=False)
    bar.minorticks_off()
    return figure


def draw_plane(axis: Axes, runs: pd.DataFrame, lowest: float) -> Any:
    """One optimizer's plane, a cell for each (λ, η), λ = 0 set apart on the left. Errors in percent."""
    optimizer = runs["optimizer"].iloc[0]
    errors = 100 * plane_of(runs)
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

    if runs["normalization"].iloc[0] != "none" and len(rates) > 1 and (penalties > 0).sum() > 1:
        draw_diagonals(axis, rates, penalties, columns, theory.diagonal_slope(optimizer))
    axis.set(
        xlim=(columns[0] - 0.5, columns[-1] + 0.5),
        ylim=(-0.5, len(rates) - 0.5),
        title=f"{NAMES[runs['normalization'].iloc[0]]}, {NAMES[optimizer]}",
        xlabel=r"penalty $\lambda$",
    )
    # Few enough to stand side by side: the first, the last, and one between where the first is λ = 0.
    between = {len(penalties) - (penalties > 0).sum() // 2 - 1} if penalties[0] == 0 else set()
    shown = sorted({0, len(penalties) - 1} | between)
    axis.set_xticks(columns[shown], [f"${number(penalties[k])}$" for k in shown])
    axis.set_yticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return image


def draw_diagonals(axis: Axes, rates: Any, penalties: Any, columns: Any, slope: float) -> None:
    """The lines log η = −slope·log λ + constant, over the cells with a penalty.

    Grids are geometric, so rows and columns are linear in log η and log λ, and the diagonals are straight lines.
    """
    positive = penalties[penalties > 0]
    start = columns[-len(positive)]
    penalised = Rectangle((start - 0.5, -0.5), len(positive), len(rates), transform=axis.transData)
    ends = np.array([positive[0] / 100, positive[-1] * 100])
    between = np.sqrt(positive[1] / positive[0])  # half a column to the right, where no number stands
    for l2 in positive[::2] * between:
        lrs = rates[len(rates) // 2] * (ends / l2) ** -slope
        x = start + np.log(ends / positive[0]) / np.log(positive[1] / positive[0])
        y = np.log(lrs / rates[0]) / np.log(rates[1] / rates[0])
        (line,) = axis.plot(x, y, color="black", linewidth=0.6, alpha=0.6)
        line.set_clip_path(penalised)


def projection(tables: Tables) -> Figure:
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


def equilibrium(tables: Tables) -> Figure:
    """Norm and effective learning rate at equilibrium, measured against predicted, with the factor between them."""
    figure, axes = plt.subplots(1, 2, figsize=(TEXT_WIDTH, 2.9))
    for axis, quantity, label in [
        (axes[0], "norm", r"norm $\|w\|$"),
        (axes[1], "effective_lr", r"effective learning rate $\eta_{\mathrm{eff}}$"),
    ]:
        for optimizer, runs in equilibria(tables):
            points = runs.groupby("run_id")[[quantity, f"predicted_{quantity}", f"{quantity}_ratio"]].median()
            factor = np.exp(np.log(points[f"{quantity}_ratio"]).mean())
            style = {"color": COLORS[optimizer], "marker": MARKERS[optimizer]}
            label_text = rf"{NAMES[optimizer]}, $\times{factor:.2f}$"
            axis.scatter(points[f"predicted_{quantity}"], points[quantity], **style, s=9, alpha=0.8, label=label_text)
        axis.set(xscale="log", yscale="log", xlabel=f"predicted {label}", ylabel=f"measured {label}")
        ends = [max(min(axis.get_xlim()[0], axis.get_ylim()[0]), 1e-12), max(axis.get_xlim()[1], axis.get_ylim()[1])]
        axis.plot(ends, ends, color="0.5", linewidth=0.8, zorder=0)
        axis.set(xlim=ends, ylim=ends, aspect="equal")
        axis.legend(title="measured / predicted", loc="upper left")
    return figure


def equilibria(tables: Tables) -> Iterator[tuple[str, pd.DataFrame]]:
    """For each optimizer with runs at equilibrium, what was measured there and predicted, by run and layer.

    Without layers most units of which have no gradient: there is no equilibrium of theirs to compare with.
    """
    for optimizer, experiment in PLANES.items():
        if experiment not in tables:
            continue
        table = equilibrium_by_layer(*tables[experiment])
        table = table[table["has_gradient"]]
        if len(table):
            yield optimizer, table


def angles(tables: Tables) -> Figure:
    """The angle per step at equilibrium against ηλ, with the prediction, and over the prediction for each layer."""
    figure, axes = plt.subplots(1, 2, figsize=(TEXT_WIDTH, 2.6), width_ratios=(1, 1.15))
    found = dict(equilibria(tables))
    for optimizer in ("sgd", "nesterov", "adamw"):
        if optimizer not in found:
            continue
        runs = found[optimizer].groupby("run_id").agg({"angle": "median", "lr": "first", "l2": "first"})
        product = runs["lr"] * runs["l2"]
        axes[0].scatter(product, runs["angle"], color=COLORS[optimizer], marker=MARKERS[optimizer], s=9, alpha=0.8)
        ends = np.array([product.min() / 1.5, product.max() * 1.5])
        line = theory.equilibrium_angle(optimizer, ends, 1.0, 1.0, 1.0, found[optimizer]["momentum"].iloc[0])
        axes[0].plot(ends, line, color=COLORS[optimizer], linewidth=1, label=NAMES[optimizer])
    axes[0].set(xscale="log", yscale="log", xlabel=r"$\eta\lambda$", ylabel="angle per step (rad)")
    axes[0].legend(loc="upper left", title="lines: predicted")

    layers = list(dict.fromkeys(layer for table in found.values() for layer in table["layer"]))
    for place, table in enumerate(found.values()):
        for k, layer in enumerate(layers):
            ratios = table.loc[table["layer"] == layer, "angle_ratio"]
            x = place + 0.18 * (k - (len(layers) - 1) / 2)
            axes[1].scatter([x] * len(ratios), ratios, s=4, alpha=0.35, color=PALETTE[k], linewidth=0)
            axes[1].scatter([x], [np.exp(np.log(ratios).mean())], s=16, color=PALETTE[k], marker="D")
            if not place:
                axes[1].scatter([], [], s=16, color=PALETTE[k], marker="D", label=layer)
    axes[1].axhline(1, color="0.5", linewidth=0.8, zorder=0)
    axes[1].set(yscale="log", ylabel="angle per step / predicted")
    axes[1].set_xticks(range(len(found)), [NAMES[optimizer] for optimizer in found])
    axes[1].yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes[1].yaxis.set_major_formatter("{x:g}")
    axes[1].yaxis.set_minor_formatter(NullFormatter())
    axes[1].legend(ncols=2, loc="best")
    return figure


def symmetry(tables: Tables) -> Figure:
    """Test error against λ for each normalization, and along the family of settings that should train one function."""
    runs = tables.runs("plane_sgd", "normalizations")
    runs = runs[runs["optimizer"] == "sgd"]
    rates = sorted(runs.loc[runs["normalization"] != "batch", "lr"].unique())
    rates = rates if len(rates) <= 2 else rates[len(rates) // 2 : len(rates) // 2 + 2]
    figure, axes = plt.subplots(1, len(rates) + 1, figsize=(TEXT_WIDTH, 2.4), sharey=True)
    for axis, lr in zip(axes, rates, strict=False):
        chosen = runs[runs["lr"] == lr].assign(error=100 * error_or_chance(runs))
        zero = chosen.loc[chosen["l2"] > 0, "l2"].min() / 6  # where λ = 0 is drawn on the log axis
        for k, normalization in enumerate(NORMALIZATIONS):
            errors = chosen[chosen["normalization"] == normalization].groupby("l2")["error"].mean()
            style = {"color": PALETTE[k], "marker": "osD^"[k]}
            axis.plot(errors.index[errors.index > 0], errors[errors.index > 0], **style, label=NAMES[normalization])
            axis.plot([zero] * (0.0 in errors), errors[errors.index == 0], **style)
        axis.axvspan(zero / 1.7, zero * 1.7, color="0.92", zorder=0, linewidth=0)
        ticks = [tick for tick in 10.0 ** np.arange(-7, 2) if zero * 3 < tick < chosen["l2"].max() * 2]
        axis.set(xscale="log", xlabel=r"penalty $\lambda$", title=rf"SGD, $\eta={number(lr)}$")
        axis.set_xticks([zero, *ticks], ["0", *(f"$10^{{{round(np.log10(tick))}}}$" for tick in ticks)])
        axis.minorticks_off()
    axes[0].set(ylabel="test error (%)", ylim=(0, 100))
    axes[0].legend(title="normalization")

    family = tables["symmetry"].runs
    family = family.assign(error=100 * error_or_chance(family))
    kinds = [("batch", eps) for eps in sorted(family.loc[family["normalization"] == "batch", "norm_eps"].unique())]
    for k, (normalization, eps) in enumerate([*kinds, ("none", None)]):
        kind = family[family["normalization"] == normalization]
        kind = kind if eps is None else kind[kind["norm_eps"] == eps]
        errors = kind.groupby("l2")["error"].mean()
        label = NAMES[normalization] if eps is None else rf"{NAMES[normalization]}, $\varepsilon={number(eps)}$"
        color = PALETTE[3] if eps is None else PALETTE[(0, 4, 5)[k % 3]]
        axes[-1].plot(errors.index, errors, color=color, marker="^osv"[(k + 1) % 4 if eps else 0], label=label)
    axes[-1].set(xscale="log", xlabel=r"penalty $\lambda$, with $\eta$ and $\|w_0\|$ scaled", title="one function")
    axes[-1].legend()
    return figure


def growth(tables: Tables) -> Figure:
    """Without a penalty: the growth of the norm, with Σ of the measured gradients, and the effective learning rate."""
    metrics, runs = tables["growth"]
    figure, axes = plt.subplots(1, 2, figsize=(TEXT_WIDTH, 2.5))
    shown = runs[runs["diverged"].isna()].sort_values(["optimizer", "lr"], ascending=[False, True])
    shown = shown[shown["seed"] == shown["seed"].min()]
    colors = sns.color_palette("viridis_r", len(shown) + 1)[1:]
    for color, run in zip(colors, shown.itertuples(), strict=True):
        rows = metrics[(metrics["run_id"] == run.run_id) & (metrics["layer"] != "")]
        curves = {
            what: rows[rows["quantity"] == what].groupby("step")["value"].median() for what in rows["quantity"].unique()
        }
        label = rf"{NAMES[run.optimizer]}, $\eta={number(run.lr)}$"
        axes[0].plot(curves["norm_squared"].index, curves["norm_squared"] ** 0.5, color=color, label=label)
        axes[1].plot(curves["effective_lr"].index, curves["effective_lr"], color=color, label=label)
        if run.optimizer == "sgd":
            steps = np.arange(1, run.steps + 1)
            grads = np.interp(steps, curves["g_squared"].index, curves["g_squared"])
            predicted = [run.initial_norm**2]  # ‖w‖² before each step: a tangent step of length ηG/‖w‖ adds its square
            for grad in grads[:-1]:
                predicted.append(predicted[-1] + run.lr**2 * grad / predicted[-1])
            axes[0].plot(steps, np.sqrt(predicted), color="black", linestyle=(0, (2, 1.5)), linewidth=0.8)
    steps = np.array([runs["steps"].iloc[0] / 30, runs["steps"].iloc[0]])
    axes[0].set(xscale="log", yscale="log", xlabel="training step", ylabel=r"norm $\|w\|$")
    axes[1].set(
        xscale="log", yscale="log", xlabel="training step", ylabel=r"effective learning rate $\eta_{\mathrm{eff}}$"
    )
    level = axes[1].get_ylim()[1] / 3
    axes[1].plot(steps, level * (steps / steps[0]) ** -0.5, color="black", linewidth=0.8)
    axes[1].text(steps[0], level, r"$t^{-1/2}$ ", ha="right", va="center")
    axes[0].legend(loc="upper left")
    return figure


def lr_drop(tables: Tables) -> Figure:
    """The norm and the effective learning rate when η falls, with and without weights rescaled to follow at once."""
    metrics, runs = tables["lr_drop"]
    figure, axes = plt.subplots(1, 2, figsize=(TEXT_WIDTH, 2.4), sharex=True)
    first = runs.iloc[0]
    drop, last = first["steps"] // 2, first["steps"]
    late = late_layers(metrics, runs[runs["diverged"].isna()])
    grad = float(np.sqrt(late["late_g_squared"].median()))
    for axis, quantity, root in [(axes[0], "norm_squared", True), (axes[1], "effective_lr", False)]:
        for rescaled, color, label in [
            (False, PALETTE[0], "weights kept"),
            (True, PALETTE[1], rf"weights rescaled by ${number(first['lr_drop'])}^{{-1/4}}$"),
        ]:
            chosen = runs.loc[runs["rescaled_at_drop"] == rescaled, "run_id"]
            rows = metrics[
                metrics["run_id"].isin(chosen) & (metrics["quantity"] == quantity) & (metrics["layer"] != "")
            ]
            curve = rows.groupby(["step", "run_id"])["value"].median().groupby("step").mean()
            curve = curve[curve.index >= drop // 2]
            axis.plot(curve.index, curve**0.5 if root else curve, color=color, label=label)
        for lr, begin, end in [(first["lr"], drop // 2, drop), (first["lr"] / first["lr_drop"], drop, last)]:
            function = theory.equilibrium_norm if root else theory.equilibrium_effective_lr
            level = function("sgd", lr, first["l2"], grad, 1.0)
            axis.plot([begin, end], [level] * 2, color="0.5", linestyle=(0, (2, 1.5)), linewidth=1)
    axes[0].set(xlabel="training step", ylabel=r"norm $\|w\|$")
    axes[1].set(xlabel="training step", ylabel=r"effective learning rate $\eta_{\mathrm{eff}}$", yscale="log")
    axes[0].legend()
    return figure
