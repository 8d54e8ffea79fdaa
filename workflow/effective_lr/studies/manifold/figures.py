"""The figures of the chapter: each a pure function of tidy tables that returns a Matplotlib figure."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from effective_lr.document.style import COLUMN_WIDTH, PALETTE, TEXT_WIDTH, few_ticks
from effective_lr.evidence.tidy import Tables
from effective_lr.studies.manifold import theory, toys
from effective_lr.studies.manifold.analysis import (
    CONTEXT_MODELS,
    MATRICES,
    angle,
    arms,
    balances,
    curve,
    is_invariant,
    main,
    measured,
    of_blocks,
    residual_growths,
    select,
)
from effective_lr.studies.manifold.bijection import matched_angle
from effective_lr.studies.manifold.words import ARMS, NAMES

COLORS = dict(zip(ARMS, PALETTE, strict=False))
MARKERS = dict(zip(ARMS, "osD^vP", strict=True))
DASHED = (0, (2, 1.5))
LINES = {0.015625: (0, (1, 3)), 0.0625: "-.", 0.25: ":", 1.0: "-", 4.0: DASHED}  # by f, in every figure


def rotation(tables: Tables) -> Figure:
    """Angle and norm of AdamW from several starts beside the constraint, and every late angle over its prediction."""
    figure, axes = plt.subplots(1, 4, figsize=(TEXT_WIDTH, 2.1), width_ratios=(1.25, 1.25, 1, 1))
    runs = main(tables["starts"].runs)
    e, beta1 = float(runs["decay_per_step"].iloc[0]), float(runs["beta1"].iloc[0])
    theta, warm_up = matched_angle(e, beta1), bool(runs["warm_up"].iloc[0])
    steps = np.arange(1.0, int(runs["steps"].iloc[0]) + 1)
    starts = sorted(select(runs, optimizer="adamw")["initial_norm"].unique(), reverse=True)
    for start, color in zip(starts, (PALETTE[3], PALETTE[0], PALETTE[2]), strict=False):
        group = select(runs, optimizer="adamw", initial_norm=start)
        label = "AdamW from " + {0.25: "$R/4$", 1.0: "$R$"}.get(start, f"${start:g}R$")
        angles = curve(tables, "starts", group, "angle")
        norms = curve(tables, "starts", group, "norm_ratio")
        axes[0].plot(angles.index, angles / theta, color=color, label=label)
        predicted = theory.adamw_angle(steps, e, start, beta1, warm_up)
        axes[0].plot(steps, predicted / theta, color=color, ls=DASHED, lw=0.9)
        axes[1].plot(norms.index, norms, color=color)
        axes[1].plot(steps, theory.adamw_norm(steps - 1, e, start), color=color, ls=DASHED, lw=0.9)
    held = select(runs, optimizer="adamh")
    if len(held):
        angles = curve(tables, "starts", held, "angle")
        axes[0].plot(angles.index, angles / theta, color="black", label="AdamH")
        axes[1].plot(curve(tables, "starts", held, "norm_ratio"), color="black")
    axes[0].set(xscale="log", yscale="log", xlabel="training step", ylabel=r"angle per step / $\theta_0$")
    axes[1].set(xscale="log", yscale="log", xlabel="training step", ylabel="norm $/R$")
    figure.legend(loc="outside upper center", ncols=4)
    for axis in axes[:2]:
        few_ticks(axis.yaxis)
    draw_late_angles(axes[2], tables, "starts", 0.10, "RMSNorm after every matrix")
    draw_late_angles(axes[3], tables, "matched", 0.25, "RMSNorm before branches")
    axes[2].set_ylabel("late angle / predicted")
    return figure


def draw_late_angles(axis: Axes, tables: Tables, experiment: str, tolerance: float, title: str) -> None:
    """The late angle of each matrix over θ₀√f, by kind of matrix, with the band within which the median should lie."""
    runs = select(tables[experiment].runs, optimizer=("adamw", "adamh"))
    axis.axhspan(1 - tolerance, 1 + tolerance, color="0.92", zorder=0, lw=0)
    axis.axhline(1, color="0.5", lw=0.8, zorder=1)
    for n, optimizer in enumerate(("adamw", "adamh")):
        group = select(runs, optimizer=optimizer)
        rows = of_blocks(measured(tables, experiment, group, "late_angle"))
        predicted = rows["run_id"].map(group.set_index("run_id").apply(angle, axis=1)) if len(group) else None
        kinds = rows["layer"].str.split(".").str[1].map(MATRICES.index)
        if len(rows):
            color = PALETTE[0] if optimizer == "adamw" else "black"
            axis.scatter(kinds + 0.3 * n - 0.15, rows["value"] / predicted, s=6, color=color, alpha=0.6, lw=0)
    axis.set_xticks(range(len(MATRICES)), MATRICES, rotation=60)
    low, high = axis.get_ylim()
    axis.set(ylim=(min(low, 0.7), max(high, 1.4)), xlim=(-0.5, len(MATRICES) - 0.5))
    axis.set_title(title, fontsize=7)


def losses_over_time(tables: Tables) -> Figure:
    """Validation loss over steps of the arms with RMSNorm, the mean over seeds with their range."""
    figure, axis = plt.subplots(figsize=(COLUMN_WIDTH, 2.7))
    runs = main(tables["matched"].runs)
    shown = runs[(runs["lr_factor"] == 1) | (runs["optimizer"] == "adamh")]
    for names, group in arms(shown):
        optimizer, factor = str(names["optimizer"]), float(str(names["lr_factor"]))
        rows = measured(tables, "matched", group, "validation_loss").groupby("step")["value"]
        style = LINES.get(factor, "-.")
        turned = {0.25: r" at $\theta_0/2$", 4.0: r" at $2\theta_0$"}.get(factor, "")
        axis.plot(rows.mean(), color=COLORS[optimizer], ls=style, lw=1.1, label=NAMES[optimizer] + turned)
        axis.fill_between(rows.min().index, rows.min(), rows.max(), color=COLORS[optimizer], alpha=0.2, lw=0)
    if set(runs["corpus"]) == {"shakespeare"}:
        for order, loss in enumerate(CONTEXT_MODELS[1:], start=1):
            axis.axhline(loss, color="0.6", lw=0.7, zorder=0)
            text = f"counts, {order} before"
            axis.text(2.2, loss + 0.02, text, fontsize=6, color="0.4", va="bottom")
        axis.set_ylim(1.45, max(3.2, 1.1 * runs["late_validation_loss"].max()))
    axis.set(xscale="log", xlim=(2, None), xlabel="training step", ylabel="validation loss (nats)")
    figure.legend(loc="outside upper center", ncols=3, fontsize=6, columnspacing=1)
    return figure


def knobs(tables: Tables) -> Figure:
    """Without RMSNorm: the residual stream block by block at each f, with the bound, and the norm of the matrices
    over f."""
    runs = select(tables["norm_free"].runs, initial_norm=1.0)
    present = [name for name in ("adamw", "adam0", "adamh", "macro-F", "macro-S") if name in set(runs["optimizer"])]
    figure, axes = plt.subplots(1, len(present) + 1, figsize=(TEXT_WIDTH, 2.1), width_ratios=[1] * len(present) + [1.2])
    layers = int(runs["layers"].iloc[0])
    blocks = [f"block{n}" for n in range(1, layers + 1)]
    tops = []
    for axis, optimizer in zip(axes, present, strict=False):
        group = select(runs, optimizer=optimizer)
        for factor, chosen in group.groupby("lr_factor"):
            line = LINES.get(float(factor), "-.")
            color, style = COLORS[optimizer], {"ls": line, "marker": MARKERS[optimizer], "ms": 3}
            rows = measured(tables, "norm_free", chosen, "late_residual_rms")
            rms = rows.groupby("layer")["value"].mean().reindex(blocks)
            axis.plot(range(1, layers + 1), rms, color=color, **style, label=f"$f={factor:g}${ending(tables, chosen)}")
            bound = measured(tables, "norm_free", chosen, "residual_bound")
            last = bound[bound["step"] == bound.groupby("run_id")["step"].transform("max")]
            ends = last.groupby("layer")["value"].mean().reindex(blocks)
            axis.plot(range(1, layers + 1), ends, color="0.5", lw=0.8, ls=line)
            tops += [rms.max(), ends.max()]
        axis.set(yscale="log", xlabel="after block", title=NAMES[optimizer])
        axis.set_xticks(range(1, layers + 1))
        axis.legend(loc="upper left", fontsize=6)
    for axis in axes[:-1]:
        axis.set_ylim(0.5, 30 * np.nanmax(tops))
        if axis is not axes[0]:
            axis.set_yticklabels([])
    axes[0].set_ylabel("RMS of the residual stream")
    small = axes[-1]
    for optimizer in present:
        norms = {}
        for factor, chosen in select(runs, optimizer=optimizer).groupby("lr_factor"):
            rows = of_blocks(measured(tables, "norm_free", chosen, "late_norm_ratio"))
            if len(rows):
                norms[float(factor)] = rows.groupby("run_id")["value"].median().mean()
        style = {"color": COLORS[optimizer], "marker": MARKERS[optimizer], "ms": 3}
        small.plot(list(norms), list(norms.values()), **style, label=NAMES[optimizer])
    factors = sorted(runs["lr_factor"].unique())
    small.plot(factors, np.sqrt(factors), color="0.5", ls=DASHED, lw=0.8)
    small.text(factors[-1], np.sqrt(factors[-1]) * 1.1, r"$\sqrt{f}$", ha="right", va="bottom", fontsize=7, color="0.4")
    small.set(xscale="log", yscale="log", xlabel="$f$", ylabel="late norm $/R$", ylim=(0.5, 14))
    small.set_xticks(factors, [f"{factor:g}" for factor in factors])
    small.set_yticks([0.5, 1, 2, 5, 10], ["0.5", "1", "2", "5", "10"])
    small.minorticks_off()
    small.legend(loc="upper left", fontsize=6)
    return figure


def ending(tables: Tables, runs: pd.DataFrame) -> str:
    """How many runs of an arm are lost, if not all, and how far their residual stream has grown before."""
    lost = runs[runs["lost"].notna()]
    if lost.empty:
        return ""
    growth = float(np.exp(np.log(residual_growths(tables, lost)).mean()))
    count = "" if len(lost) == len(runs) else f" {len(lost)}"
    return f",{count} lost" + (rf" at ${growth:.3g}\times$" if growth < np.inf else "")


def equilibrium_law(tables: Tables) -> Figure:
    """AdamW's balance, the left side over the right, by kind of matrix and place of RMSNorm, without and with the
    memory of the optimizer."""
    figure, axes = plt.subplots(1, 2, figsize=(TEXT_WIDTH, 2.5), sharey=True)
    rows = balances(tables)
    places = {"every": 0.0, "pre": len(MATRICES) + 0.7}
    rows["x"] = rows["rms_norm"].map(places) + rows["kind"].map(MATRICES.index)
    free, slow = is_invariant(rows), rows["is_slow"]
    tested = {"s": 12, "marker": "o", "color": PALETTE[0], "lw": 0}
    others = {"s": 12, "marker": "s", "color": PALETTE[1], "lw": 0}
    series: list[tuple[str, pd.DataFrame, str, dict[str, Any]]] = [
        ("$e/4$", rows[slow & free], "", tested),
        ("$e/4$, scale matters", rows[slow & ~free], "", others),
        ("without the radial term", rows[slow & ~free], "without_radius", others | {"facecolor": "none", "lw": 0.8}),
        ("$e$", rows[~slow], "", {"s": 9, "marker": "x", "color": "0.45", "lw": 0.7}),
    ]
    for axis, column in zip(axes, ("without_memory", "with_memory"), strict=True):
        axis.axhspan(0.9, 1.1, color="0.92", zorder=0, lw=0)
        axis.axhline(1, color="0.5", lw=0.8, zorder=1)
        for label, points, other, style in series:
            if not other or column == "with_memory":
                shift = 0.2 if style["marker"] == "x" else -0.1
                axis.scatter(points["x"] + shift, points[other or column], label=label, **style)
        ticks = [place + n for place in places.values() for n in range(len(MATRICES))]
        axis.set_xticks(ticks, MATRICES * 2, rotation=60)
        axis.set(xlim=(-0.7, ticks[-1] + 0.7), title=column.replace("_", " "))
        for name, place in places.items():
            text = f"RMSNorm {NAMES[name]}"
            axis.text(place + 2.5, 0.98, text, ha="center", va="top", transform=axis.get_xaxis_transform(), fontsize=6)
    axes[0].set_ylabel("left side / right side")
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def convergence(tables: Tables) -> Figure:
    """D5 and D6 on a linear loss over the sphere: what gradient is left over η, and how it falls with T. No run is
    read."""
    figure, axes = plt.subplots(1, 3, figsize=(TEXT_WIDTH, 2.3))
    rates = np.geomspace(0.01, 0.16, 5)
    for name, label in [("macro-F", "macro-F"), ("muonh", "muonh"), ("sign", "adam0")]:
        left = [np.mean([toys.floor(seed, name, rate) for seed in toys.SEEDS]) for rate in rates]
        shown = {"macro-F": "projected msign", "muonh": "msign", "sign": "sign"}[name]
        axes[0].plot(rates, left, MARKERS[label], ms=4, color=COLORS[label], label=shown)
        if name != "macro-F":
            forms = [
                theory.stuck_gradient(toys.Toy(seed).loss, "msign" if name == "muonh" else "sign")
                for seed in toys.SEEDS
            ]
            axes[0].axhline(np.mean(forms), color=COLORS[label], lw=0.9)
        else:
            axes[0].plot(rates, left[2] * rates / rates[2], color=COLORS[label], lw=0.9)
    axes[0].set(xlabel=r"step length $\eta$", ylabel=r"$|\nabla|/\|C\|_F$ left", title="no noise, long after")
    for axis, measure, power, title in [
        (axes[1], toys.mean_gradient, -0.5, r"no noise, mean of $T$ steps"),
        (axes[2], toys.late_noisy_gradient, -0.25, "noise, last tenth"),
    ]:
        horizons = np.array(toys.HORIZONS, dtype=float)
        for name in ("macro-F", "muonh"):
            found = [np.mean([measure(seed, name, steps) for seed in toys.SEEDS]) for steps in toys.HORIZONS]
            axis.plot(horizons, found, MARKERS[name], ms=4, color=COLORS[name])
            if name == "macro-F":
                middle = found[2] * (horizons / horizons[2]) ** power
                axis.plot(horizons, middle, color=COLORS[name], lw=0.9)
        exponent = {-0.5: r"$T^{-1/2}$", -0.25: r"$T^{-1/4}$"}[power]
        axis.text(horizons[-1], middle[-1] * 1.25, exponent, ha="right", va="bottom", fontsize=7)
        axis.set(xlabel="steps $T$", title=title)
    for axis in axes:
        axis.set(xscale="log", yscale="log", ylim=(0.004, 1))
        axis.yaxis.set_minor_formatter(NullFormatter())
    figure.legend(loc="outside upper center", ncols=3)
    return figure
