"""The figures of the chapter: each a pure function of tidy tables that returns a Matplotlib figure."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from effective_lr.document.notation import number
from effective_lr.document.style import COLUMN_WIDTH, PALETTE, TEXT_WIDTH, annotate_empty, few_ticks, sequential
from effective_lr.evidence.tidy import Tables
from effective_lr.studies.normalization import theory
from effective_lr.studies.normalization.analysis import (
    PLANES,
    critical_points,
    dynamics,
    equilibria,
    equilibrium_by_layer,
    error_or_chance,
    geometric_mean,
    late_layers,
    median_error,
    with_angle_scales,
)
from effective_lr.studies.normalization.analysis import (
    equilibrium_law as law_by_layer,
)
from effective_lr.studies.normalization.analysis import plane as plane_of
from effective_lr.studies.normalization.words import NAMES, NORMALIZATIONS

COLORS = dict(zip([*PLANES, "adamw"], PALETTE, strict=False))
MARKERS = dict(zip([*PLANES, "adamw"], "osD^v", strict=True))
ERROR_COLORS = "viridis_r"


def dynamics_over_time(tables: Tables) -> Figure:
    """Norm and effective learning rate over training for several λ, with the predicted equilibrium."""
    metrics, runs = dynamics(tables["plane_sgd"])
    medians = equilibrium_by_layer(metrics, runs).groupby(["l2", "run_id"])[
        ["predicted_norm", "predicted_effective_lr"]
    ]
    predicted = medians.median().groupby("l2").mean()
    penalties = sorted(runs["l2"].unique())
    colors = dict(zip(penalties, ["black", *sequential(len(penalties))[1:]], strict=True))
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
        few_ticks(axis.yaxis)
    axes[1].set_xlabel("training step")
    axes[0].legend(title=r"$\lambda$", ncols=2, loc="upper left", labelspacing=0.3, columnspacing=1)
    return figure


def planes(tables: Tables) -> list[pd.DataFrame]:
    """The runs of each (λ, η) plane, by normalization and optimizer."""
    runs = tables.runs()
    found = [
        runs[(runs["normalization"] == normalization) & (runs["optimizer"] == optimizer)]
        for normalization in NORMALIZATIONS
        for optimizer in PLANES
    ]
    return [plane for plane in found if len(plane)]


def plane_title(runs: pd.DataFrame) -> str:
    return f"{NAMES[runs['normalization'].iloc[0]]}, {NAMES[runs['optimizer'].iloc[0]]}"


def lowest_error(found: list[pd.DataFrame]) -> float:
    """The lowest test error (%) of a run in these planes, where their scale of colours begins."""
    return float(100 * min(error_or_chance(runs).min() for runs in found))


def plane(tables: Tables) -> Figure:
    """Test error over each (λ, η) plane, with lines along which the predicted effective learning rate is constant."""
    found = planes(tables)
    columns = 4
    rows = -(-len(found) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(TEXT_WIDTH, 0.4 + 1.75 * rows), squeeze=False)
    lowest = lowest_error(found)
    for axis, runs in zip(axes.flat, found, strict=False):
        image = draw_plane(axis, runs, lowest)
    for axis in axes.flat[len(found) :]:
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
    errors = 100 * plane_of(runs)
    rates, penalties = errors.index.to_numpy(), errors.columns.to_numpy()
    columns = columns_of(penalties)
    scale = LogNorm(lowest, 90)
    for j, column in enumerate(columns):
        image = axis.pcolormesh(
            [column - 0.5, column + 0.5],
            np.arange(len(rates) + 1) - 0.5,
            errors.iloc[:, [j]].to_numpy(),
            norm=scale,
            cmap=ERROR_COLORS,
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

    for x, y in diagonals(runs, rates, penalties):
        axis.plot(x, y, color="black", linewidth=0.6, alpha=0.6)
    axis.set(
        xlim=(columns[0] - 0.5, columns[-1] + 0.5),
        ylim=(-0.5, len(rates) - 0.5),
        title=plane_title(runs),
        xlabel=r"penalty $\lambda$",
    )
    shown = named_columns(penalties)
    axis.set_xticks(columns[shown], [f"${number(penalties[k])}$" for k in shown])
    axis.set_yticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return image


def columns_of(penalties: Any) -> Any:
    """Where the column of each λ stands: λ = 0 a little apart."""
    return np.arange(len(penalties)) + np.where(penalties == 0, -0.3, 0.0)


def named_columns(penalties: Any) -> list[int]:
    """Few enough to stand side by side: the first, the last, and one between where the first is λ = 0."""
    between = {len(penalties) - (penalties > 0).sum() // 2 - 1} if penalties[0] == 0 else set()
    return sorted({0, len(penalties) - 1} | between)


def diagonals(runs: pd.DataFrame, rates: Any, penalties: Any) -> list[tuple[Any, Any]]:
    """The ends, x and y, of the lines log η = −slope·log λ + constant, over the cells with a penalty.

    None without normalization. Grids are geometric, so rows and columns are linear in log η and log λ, and the lines
    are straight.
    """
    positive, middle = penalties[penalties > 0], len(rates) // 2
    if runs["normalization"].iloc[0] == "none" or len(rates) < 2 or len(positive) < 2:
        return []
    left = columns_of(penalties)[-len(positive)]
    slope = theory.diagonal_slope(runs["optimizer"].iloc[0])
    rise = -slope * np.log(positive[1] / positive[0]) / np.log(rates[1] / rates[0])  # rows per column
    found = []
    for place in np.arange(left, left + len(positive), 2) + 0.5:  # half a column to the right, where no number stands
        ends = place + (np.array([-0.5, len(rates) - 0.5]) - middle) / rise
        x = np.clip(ends, left - 0.5, left + len(positive) - 0.5)
        found.append((x, middle + rise * (x - place)))
    return found


def projection(tables: Tables) -> Figure:
    """Test error against λ at one learning rate, with and without ‖w‖ = 1 after each step."""
    figure, axes = plt.subplots(1, 3, figsize=(TEXT_WIDTH, 2.2), sharey=True)
    for axis, optimizer in zip(axes, ("sgd", "nesterov", "adam"), strict=True):
        held = tables[f"projection_{optimizer}"].runs
        held = held.assign(error=100 * error_or_chance(held))
        runs = tables.runs(f"projection_{optimizer}", f"plane_{optimizer}")
        lr = held.loc[held["l2"] > 0, "lr"].iloc[0]
        others = held[held["lr"] != lr]
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
        if len(others):  # without a penalty, at the learning rate to which the penalty is predicted to amount
            matched = others.groupby("lr")["error"].mean()
            at = float(theory.critical_l2(optimizer, lr)) * (1 - lr / matched.index)
            label = r"$\|w\|=1$, $\lambda=0$, $\eta/(1-\lambda/\lambda_c)$"
            axis.plot(at, matched, "D", color=PALETTE[2], markerfacecolor="none", markersize=6, label=label)
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
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def equilibrium(tables: Tables) -> Figure:
    """Norm and effective learning rate at equilibrium, measured against predicted, with the factor between them."""
    figure, axes = plt.subplots(1, 2, figsize=(TEXT_WIDTH, 2.9))
    for axis, quantity, label in [
        (axes[0], "norm", r"norm $\|w\|$"),
        (axes[1], "effective_lr", r"effective learning rate $\eta_{\mathrm{eff}}$"),
    ]:
        for optimizer, runs in with_gradients(tables).items():
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
    few_ticks(axes[0].xaxis)
    few_ticks(axes[0].yaxis)
    return figure


def with_gradients(tables: Tables) -> dict[str, pd.DataFrame]:
    """`equilibria` of the optimizers that have any, without layers of which too many units have no gradient."""
    found = {optimizer: table[table["has_gradient"]] for optimizer, table in equilibria(tables)}
    return {optimizer: table for optimizer, table in found.items() if len(table)}


def angles(tables: Tables) -> Figure:
    """The angle per step at equilibrium against ηλ, with the prediction, and over the prediction for each layer."""
    figure, axes = plt.subplots(1, 2, figsize=(TEXT_WIDTH, 2.6), width_ratios=(1, 1.15))
    found = with_gradients(tables)
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
    if axes[0].get_lines():
        axes[0].legend(loc="upper left", title="lines: predicted")
    else:
        annotate_empty(axes[0], "no run has reached equilibrium")

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
    few_ticks(axes[1].yaxis, (1, 1.2, 1.5, 2, 3, 5, 6, 7, 8))
    axes[1].legend(ncols=2, loc="best")
    return figure


LAW_TOLERANCES = {"rmsprop": (0.85, 1.1)}  # of the balance in claims.yaml
LAW_TOLERANCE = (0.9, 1.1)  # of the other optimizers


def equilibrium_law(tables: Tables) -> Figure:
    """The balance at equilibrium of each optimizer and layer, without and with the memory of the optimizer."""
    figure, axes = plt.subplots(1, 2, figsize=(TEXT_WIDTH, 2.6), sharey=True)
    law = law_by_layer(tables)
    optimizers, layers = list(law["optimizer"].unique()), list(law["layer"].unique())
    for axis, column, title in [
        (axes[0], "without_memory", "without memory"),
        (axes[1], "with_memory", "with memory"),
    ]:
        for place, optimizer in enumerate(optimizers):
            low, high = LAW_TOLERANCES.get(optimizer, LAW_TOLERANCE)
            axis.fill_between([place - 0.45, place + 0.45], low, high, color="0.92", linewidth=0, zorder=0)
        for k, layer in enumerate(layers):
            rows = law[law["layer"] == layer]
            places = rows["optimizer"].map(optimizers.index) + 0.18 * (k - (len(layers) - 1) / 2)
            axis.scatter(places, rows[column], s=4, alpha=0.5, color=PALETTE[k], linewidth=0)
            means = rows.groupby(places)[column].agg(geometric_mean)
            axis.scatter(means.index, means, s=16, color=PALETTE[k], marker="D", label=layer)
        axis.axhline(1, color="0.5", linewidth=0.8, zorder=0)
        axis.set(yscale="log", title=title)
        axis.set_xticks(range(len(optimizers)), [NAMES[optimizer] for optimizer in optimizers])
        if law.empty:
            annotate_empty(axis, "no run has reached equilibrium")
    axes[0].set_ylabel("shrinking by the penalty\n/ growth by the steps")
    if len(law):
        few_ticks(axes[0].yaxis, (1, 1.1, 6, 7, 8, 9))
        axes[0].legend(ncols=2)
    return figure


def symmetry(tables: Tables) -> Figure:
    """Test error against λ for each normalization; how far runs that should train one function are apart."""
    runs = tables.runs("plane_sgd", "normalizations")
    runs = runs[runs["optimizer"] == "sgd"]
    rates = sorted(runs.loc[runs["normalization"] != "batch", "lr"].unique())
    lr = rates[len(rates) // 2]
    chosen = runs[runs["lr"] == lr].assign(error=100 * error_or_chance(runs))
    figure, (sweep, errors_axis, norms_axis) = plt.subplots(1, 3, figsize=(TEXT_WIDTH, 2.7))
    zero = zero_apart(sweep, chosen["l2"])
    for k, normalization in enumerate(NORMALIZATIONS):
        errors = chosen[chosen["normalization"] == normalization].groupby("l2")["error"].mean()
        style = {"color": PALETTE[k], "marker": "osD^"[k]}
        sweep.plot(errors.index[errors.index > 0], errors[errors.index > 0], **style, label=NAMES[normalization])
        sweep.plot([zero] * (0.0 in errors), errors[errors.index == 0], **style)
    sweep.set(title=rf"a sweep of $\lambda$, $\eta={number(lr)}$", ylabel="test error (%)", ylim=(0, 100))
    sweep.legend(title="normalization")

    metrics, family = tables["symmetry"]
    norms = late_layers(metrics, family).groupby("run_id")[["late_norm_squared", "late_angle_squared"]].median() ** 0.5
    family = family.merge(norms, left_on="run_id", right_index=True, how="left")
    family = family.assign(
        error=100 * median_error(tables["symmetry"], family), norm=family["late_norm_squared"] / family["initial_norm"]
    )
    errors_axis.axhspan(-1.5, 1.5, color="0.92", zorder=0, linewidth=0)
    for k, (label, kind) in enumerate(family_members(family)):
        style = {"color": PALETTE[k], "marker": "osD^v"[k], "label": label}
        change = from_the_middle(kind, "error", relative=False)
        errors_axis.plot(change.index, change, **style)
        if kind["normalization"].iloc[0] == "batch":
            for what, line, filled in [("norm", "-", style["color"]), ("late_angle_squared", ":", "white")]:
                change = 100 * from_the_middle(kind, what, relative=True)
                name = r"$\|w\|/a$" if what == "norm" else "angle"
                drawn = {**style, "label": f"{label}: {name}", "linestyle": line, "markerfacecolor": filled}
                norms_axis.plot(change.index, change, **drawn)
    errors_axis.set_yscale("symlog", linthresh=2)
    errors_axis.set_yticks([-2, -1, 0, 1, 2, 10, 50], ["$-2$", "$-1$", "0", "1", "2", "10", "50"])
    errors_axis.minorticks_off()
    errors_axis.set(ylabel="change of the error (points)", title="one function, at every $a$")
    norms_axis.set(ylabel=r"change (%)", title=r"one function: what $\varepsilon$ breaks")
    for axis in (errors_axis, norms_axis):
        axis.axhline(0, color="0.5", linewidth=0.8, zorder=0)
        axis.set(xscale="log", xlabel="$a$")
        axis.legend(fontsize=6)
    errors_axis.legend(fontsize=6, loc="lower center", ncols=2)
    return figure


def zero_apart(axis: Axes, penalties: pd.Series) -> float:
    """Make the axis of λ logarithmic, with λ = 0 on a grey ground at its left; where λ = 0 is drawn."""
    zero = float(penalties[penalties > 0].min() / 6)
    axis.axvspan(zero / 1.7, zero * 1.7, color="0.92", zorder=0, linewidth=0)
    ticks = [tick for tick in 10.0 ** np.arange(-7, 2) if zero * 3 < tick < penalties.max() * 2]
    axis.set(xscale="log", xlabel=r"penalty $\lambda$")
    axis.set_xticks([zero, *ticks], ["0", *(f"$10^{{{round(np.log10(tick))}}}$" for tick in ticks)])
    axis.minorticks_off()
    return zero


def family_members(family: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The runs of the symmetry family by normalization, and by ε where there are several, each with its name."""
    for normalization in NORMALIZATIONS:
        kind = family[family["normalization"] == normalization]
        several = kind["norm_eps"].nunique() > 1
        for eps, runs in kind.groupby("norm_eps"):
            name = NAMES[normalization]
            yield rf"{name}, $\varepsilon={number(eps)}$" if several else name, runs


def from_the_middle(kind: pd.DataFrame, value: str, relative: bool) -> pd.Series:
    """By a, the mean over seeds of the change from the run with a = 1 of the same seed."""
    middle = kind["seed"].map(kind[kind["initial_norm"] == 1].set_index("seed")[value])
    change = kind[value] / middle - 1 if relative else kind[value] - middle
    return change.groupby(kind["initial_norm"]).mean()


def growth(tables: Tables) -> Figure:
    """Without a penalty: the growth of the norm, and the effective learning rate with what ⟨G²⟩ implies for its end."""
    metrics, runs = tables["growth"]
    figure, axes = plt.subplots(1, 2, figsize=(TEXT_WIDTH, 2.5))
    shown = runs[runs["diverged"].isna()].sort_values(["optimizer", "lr"], ascending=[False, True])
    shown = shown[shown["seed"] == shown["seed"].min()]
    colors = sequential(len(shown) + 1)[1:]
    layers = metrics[metrics["layer"] != ""]
    for color, run in zip(colors, shown.itertuples(), strict=True):
        rows = layers[layers["run_id"] == run.run_id]
        curves = {
            what: rows[rows["quantity"] == what].groupby("step")["value"].median() for what in rows["quantity"].unique()
        }
        label = rf"{NAMES[run.optimizer]}, $\eta={number(run.lr)}$"
        axes[0].plot(curves["norm_squared"].index, curves["norm_squared"] ** 0.5, color=color, label=label)
        axes[1].plot(curves["effective_lr"].index, curves["effective_lr"], color=color, label=label)
        if run.optimizer == "sgd":
            begin = min(round(run.steps * (1 - run.late_fraction)), run.steps - 1)
            grad = curves["late_g_squared"].iloc[0] ** 0.5  # of the time mean over the late part
            steps = np.geomspace(max(begin, 1), run.steps, 20)
            start = curves["late_start_norm_squared"].iloc[0] ** 0.5
            norm = theory.growth_norm(run.lr, grad, steps - begin, start)
            dashed = {"color": "black", "linestyle": (0, (2, 1.5)), "linewidth": 1, "zorder": 3}
            axes[0].plot(steps, norm, **dashed)
            axes[1].plot(steps, theory.effective_lr("sgd", run.lr, norm), **dashed)
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


ARMS = {  # of the memorization experiment: (normalization, replay), with its name and style
    ("batch", "none"): ("penalty, batch normalization", PALETTE[0], "o", "-"),
    ("batch", "slow"): ("one slow rate for each layer alone", PALETTE[1], "s", "--"),
    ("batch", "closed"): ("each group's own rate alone", PALETTE[4], "v", ":"),
    ("batch", "open"): ("the same, of a recorded run", PALETTE[2], "D", ":"),
    ("none", "none"): ("penalty, no normalization", PALETTE[3], "^", "-"),
}


def memorization(tables: Tables) -> Figure:
    """With wrong labels: test error and training loss against λ, for the penalty, its replay, and no normalization."""
    runs = tables["memorization"].runs
    runs = runs.assign(error=100 * median_error(tables["memorization"], runs))
    figure, axes = plt.subplots(1, 2, figsize=(TEXT_WIDTH, 2.7))
    for axis, what, label in [(axes[0], "error", "test error (%)"), (axes[1], "late_train_loss", "training loss")]:
        zero = zero_apart(axis, runs["l2"])
        for (normalization, loop), (name, color, marker, line) in ARMS.items():
            arm = runs[(runs["normalization"] == normalization) & (runs["replay"] == loop)]
            means = arm.groupby("l2")[what].mean()
            positive = means[means.index > 0]
            axis.plot(arm["l2"].replace(0, zero), arm[what], marker, color=color, markersize=2, alpha=0.5)
            axis.plot(positive.index, positive, color=color, marker=marker, linestyle=line, label=name)
            axis.plot([zero] * (0.0 in means), means[means.index == 0], color=color, marker=marker)
        axis.set(ylabel=label)
    axes[1].set(yscale="log")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def lost_units(tables: Tables) -> Figure:
    """The share of units without a gradient against θ, by layer; where half of a layer is lost, against its width."""
    figure, axes = plt.subplots(1, 2, figsize=(TEXT_WIDTH, 2.6), width_ratios=(1.3, 1))
    metrics, runs = tables["lost_units"]
    runs = runs[runs["optimizer"].isin(["adam", "rmsprop"]) & ~runs["corrected_squares"]]
    shares = with_angle_scales(late_layers(metrics, runs[runs["diverged"].isna()]))
    shares = shares.assign(theta=shares["widest_theta"].round(3))
    sizes = np.sort(shares["group_size"].unique())
    scanned = pd.Series(theory.diagonal_invariant("adam", runs["lr"], runs["l2"]))
    for optimizer, line, filled in (("adam", "-", True), ("rmsprop", "--", False)):
        chosen = shares[shares["optimizer"] == optimizer]
        for k, (layer, rows) in enumerate(chosen.groupby("layer", sort=False)):
            mean = 100 * rows.groupby("theta")["late_without_gradient"].mean()
            style = {"color": PALETTE[k], "marker": "osD^"[k], "linestyle": line}
            style |= {} if filled else {"markerfacecolor": "white"}
            axes[0].plot(mean.index, mean, **style, label=f"{NAMES[optimizer]}, {layer}")
        points = critical_points(chosen)
        points = points[points["is_reached"]].groupby("group_size")["critical"].agg(geometric_mean)
        style = {"color": COLORS[optimizer], "marker": MARKERS[optimizer], "linestyle": "none"}
        axes[1].plot(points.index, points, **style, label=NAMES[optimizer])
        if points.empty:
            annotate_empty(axes[1], "no layer has lost half")
        else:
            axes[1].plot(sizes, points.iloc[-1] * points.index[-1] / sizes, color=COLORS[optimizer], linewidth=0.8)
    axes[0].set(
        xscale="log", xlabel=r"$\theta$ of the widest layer", ylabel="units without a gradient (%)", ylim=(-5, 105)
    )
    few_ticks(axes[0].xaxis)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=6)
    axes[1].set(
        xscale="log",
        yscale="log",
        xlabel="weights of a unit, $d$",
        xlim=(sizes[0] / 1.5, sizes[-1] * 1.5),
        ylim=(scanned.min(), scanned.max()),  # no layer need have lost half
        ylabel=r"$\eta^2\lambda$ where half is lost",
        title=r"lines: $\propto 1/d$",
    )
    axes[1].legend()
    return figure
