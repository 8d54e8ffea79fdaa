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
    last_block,
    late_median,
    losses,
    main,
    measured,
    of_blocks,
    select,
)
from effective_lr.studies.manifold.bijection import matched_angle
from effective_lr.studies.manifold.words import ARMS, NAMES

COLORS = dict(zip(ARMS, PALETTE, strict=False))
MARKERS = dict(zip(ARMS, "osD^vP", strict=True))
DASHED = (0, (2, 1.5))


def turning(tables: Tables) -> Figure:
    """From theory alone: a matrix that decays, steps and turns; and how AdamW forgets its norm and its direction, and
    its second moment old gradients, at the e and β₂ of the chapter, at two f."""
    figure, axes = plt.subplots(1, 2, figsize=(COLUMN_WIDTH, 1.9), width_ratios=(1, 1.2))
    draw_step(axes[0])
    run = main(tables["starts"].runs).iloc[0]
    e, steps = float(run["decay_per_step"]), np.geomspace(1, 4 * run["steps"], 200)
    for factor, style in [(1.0, "-"), (0.25, DASHED)]:
        names = (r"direction, $1/(ef)$", r"norm$^2$, $1/(2ef)$") if factor == 1 else ("", "")
        axes[1].plot(steps, np.exp(-e * factor * steps), ls=style, color=PALETTE[3], label=names[0])
        axes[1].plot(steps, np.exp(-2 * e * factor * steps), ls=style, color=PALETTE[0], label=names[1])
    axes[1].plot(steps, run["beta2"] ** steps, color="0.6", zorder=0, label=r"$\hat s$, $1/(1-\beta_2)$")
    axes[1].set(xscale="log", xlabel="steps later", ylabel="left of the start", ylim=(0, 1.05))
    figure.legend(loc="outside upper center", ncols=3, fontsize=6)
    return figure


def draw_step(axis: Axes) -> None:
    """One step of AdamW at equilibrium, with e and θ₀ far larger than in any run."""
    start, turn = np.radians(68), np.radians(36)
    before, after = (np.array([np.cos(x), np.sin(x)]) for x in (start, start + turn))
    shrunk = before * np.cos(turn)  # the step is perpendicular to W and ends on the sphere
    wide, narrow = np.linspace(start - 0.35, start + turn + 0.3, 60), np.linspace(start, start + turn, 30)
    axis.plot(np.cos(wide), np.sin(wide), color="0.7", lw=0.8)
    axis.plot(0.3 * np.cos(narrow), 0.3 * np.sin(narrow), color="black", lw=0.7)
    arrow = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "mutation_scale": 7}
    for tail, head, color in [
        ((0, 0), before, "black"),
        ((0, 0), after, "0.5"),
        (before, shrunk, PALETTE[0]),
        (shrunk, after, PALETTE[3]),
    ]:
        axis.annotate("", head, tail, arrowprops={**arrow, "color": color, "lw": 1.2})
    middle = start + turn / 2
    for place, text, color in [
        (0.4 * np.array([np.cos(middle), np.sin(middle)]), r"$\theta_0$", "black"),
        (1.08 * before, "$W$", "black"),
        (0.5 * (before + shrunk) + (0.15, -0.03), "$-eW$", PALETTE[0]),
        (0.5 * (shrunk + after) + (-0.06, -0.13), r"$-\eta u$", PALETTE[3]),
        (0.4 * before + (0.09, 0), "$R$", "0.4"),
    ]:
        axis.text(place[0], place[1], text, color=color, fontsize=7, ha="center", va="center")
    axis.set(xlim=(-0.55, 0.75), ylim=(-0.03, 1.15), aspect="equal")
    axis.axis("off")


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
    held = select(tables["matched"].runs, optimizer="adamh", lr_factor=1.0)
    axes[0].plot(curve(tables, "matched", held, "angle") / theta, color="black", label="AdamH")
    axes[1].plot(curve(tables, "matched", held, "norm_ratio"), color="black")
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
    """The late angle of each matrix over its prediction at f = 1, by kind of matrix, with the band within which the
    median should lie."""
    runs = select(main(tables[experiment].runs), lr_factor=1.0)
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
    """Validation loss over steps of the arms with RMSNorm at θ₀, and of AdamW and AdamH at half of it: the mean over
    seeds with their range."""
    figure, axis = plt.subplots(figsize=(COLUMN_WIDTH, 2.7))
    runs = tables["matched"].runs
    for names, group in arms(runs):
        optimizer, factor, e = (names[key] for key in ("optimizer", "lr_factor", "decay_per_step"))
        is_half = e < runs["decay_per_step"].max() if optimizer == "adamw" else factor == 0.25
        if factor != 1 and not (optimizer == "adamh" and is_half):
            continue
        rows = measured(tables, "matched", group, "validation_loss").groupby("step")["value"]
        label = NAMES[optimizer] + (r" at $\theta_0/2$" if is_half else "")
        axis.plot(rows.mean(), color=COLORS[optimizer], ls=DASHED if is_half else "-", lw=1.1, label=label)
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


def over_factors(axis: Axes, runs: pd.DataFrame, values: pd.Series, optimizer: str) -> None:
    """Values by run_id over f: a point for each run, the geometric mean over seeds as a line; of a lost run a cross."""
    group = select(runs, optimizer=optimizer)
    group = group.assign(value=group["run_id"].map(values).astype(float)).dropna(subset="value")
    for is_lost, some in group.groupby(group["lost"].notna()):
        shape, width = ("x", 0.8) if is_lost else (MARKERS[optimizer], 0)
        axis.scatter(some["lr_factor"], some["value"], s=9, color=COLORS[optimizer], zorder=3, marker=shape, lw=width)
    means = np.exp(np.log(group["value"]).groupby(group["lr_factor"]).mean())
    axis.plot(means, color=COLORS[optimizer], label=NAMES[optimizer])


def factor_axis(axis: Axes, runs: pd.DataFrame) -> None:
    """f as powers of two."""
    factors = sorted(runs["lr_factor"].unique())
    axis.set(xscale="log", xlabel="$f$")
    axis.set_xticks(factors, [f"{f:g}" if f >= 1 else f"1/{1 / f:g}" for f in factors])
    axis.minorticks_off()


def knobs(tables: Tables) -> Figure:
    """Without RMSNorm: the late norm of the matrices, and the late RMS of the residual stream after the last block,
    over f by optimizer."""
    figure, axes = plt.subplots(1, 2, figsize=(COLUMN_WIDTH, 2.3))
    every = tables["norm_free"].runs
    runs = select(every, initial_norm=1.0)
    norms = late_median(tables, "norm_free", every, "norm_ratio")
    rows = measured(tables, "norm_free", runs, "late_residual_rms")
    streams = rows[rows["layer"] == last_block(runs)].set_index("run_id")["value"]
    present = [name for name in ARMS if name in set(runs["optimizer"])]
    for optimizer in present:
        over_factors(axes[0], runs, norms, optimizer)
        over_factors(axes[1], runs, streams, optimizer)
    settled_start = select(every[every["initial_norm"] != 1], optimizer="adamw")
    own = settled_start["run_id"].map(norms)
    axes[0].scatter(settled_start["lr_factor"], own, s=14, facecolor="none", edgecolor=COLORS["adamw"], zorder=4)
    factors = np.array(sorted(every["lr_factor"].unique()))
    axes[0].plot(factors, np.sqrt(factors), color="0.5", ls=DASHED, lw=0.8)
    for axis, label in zip(axes, ("late norm $/R$", "late residual RMS"), strict=True):
        factor_axis(axis, every)
        axis.set(yscale="log", ylabel=label)
        few_ticks(axis.yaxis, (1,))
    axes[0].set_ylim(bottom=max(axes[0].get_ylim()[0], 0.1))  # AdamW's norm at f = 4 can vanish
    few_ticks(axes[0].yaxis)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=6)
    return figure


def rates(tables: Tables) -> Figure:
    """The late validation loss over f by optimizer, with RMSNorm before branches and without it."""
    figure, axes = plt.subplots(1, 2, figsize=(COLUMN_WIDTH, 2.3), sharey=True)
    shown: dict[str, Any] = {}
    for axis, (experiment, title) in zip(axes, {"matched": "RMSNorm", "norm_free": "no RMSNorm"}.items(), strict=True):
        runs = select(main(tables[experiment].runs), initial_norm=1.0)
        for optimizer in ARMS:
            if optimizer in set(runs["optimizer"]):
                over_factors(axis, runs, losses(runs).set_axis(runs["run_id"]), optimizer)
        factor_axis(axis, runs)
        axis.axhline(np.log(runs["vocabulary"].iloc[0]), color="0.5", ls=DASHED, lw=0.8)
        axis.set_title(title)
        handles, labels = axis.get_legend_handles_labels()
        shown |= dict(zip(labels, handles, strict=True))
    axes[0].set(yscale="log", ylabel="late validation loss (nats)")
    few_ticks(axes[0].yaxis, (1, 2, 3))
    figure.legend(list(shown.values()), list(shown), loc="outside upper center", ncols=3, fontsize=6)
    return figure


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
