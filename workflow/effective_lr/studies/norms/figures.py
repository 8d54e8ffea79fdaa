"""The figures of the chapter: each a pure function of tidy tables that returns a Matplotlib figure."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from effective_lr.document.notation import number
from effective_lr.document.style import PALETTE, TEXT_WIDTH
from effective_lr.evidence.estimates import Estimate, Undecidable, mean_interval
from effective_lr.evidence.tidy import Tables
from effective_lr.studies.norms import theory
from effective_lr.studies.norms.analysis import (
    REPORTED,
    STANDARD,
    arms,
    by_split,
    cells,
    chosen,
    log_ratios,
    paired,
    tuned,
)
from effective_lr.studies.norms.words import NAMES, SUBJECTS

SHOWN = ("car", "scar", "inverse", "l1", "adaptive")  # against l2
COLORS = dict(zip(("l2", "car", "inverse", "l1", "scar", "adaptive"), PALETTE, strict=False))
COLORS |= {"covridge": COLORS["car"], "sparridge": COLORS["scar"], "covridge-all": "0.35", "sparridge-all": "0.65"}
MARKERS = dict(zip(COLORS, "osD^vPsv<>", strict=True))
TRUTHS = ("high", "dense", "sparse", "prior", "low")
COMPARED = ("covridge", "sparridge", "covridge-all", "sparridge-all")  # against the best standard penalty


def alignment_decides(tables: Tables) -> Figure:
    """Shrinkage against the eigenvalue; linear risk of CAR and a = −1 over that of ridge against where the truth
    lies."""
    figure, axes = plt.subplots(1, 2, figsize=(TEXT_WIDTH, 2.4))
    d = np.geomspace(0.05, 20, 100)
    for penalty, a in theory.POWER.items():
        for l2, style in ((0.1, ":"), (1.0, "-")):
            label = rf"{NAMES[penalty]} ($a={a}$)" if l2 == 1 else None
            label = NAMES[penalty] if label and penalty == "inverse" else label
            axes[0].plot(d, theory.shrinkage(d, l2, a), style, color=COLORS[penalty], label=label)
    axes[0].set(
        xscale="log", ylim=(0, 1.03), xlabel="eigenvalue $d_j$ of $S$", ylabel="what is left of least squares $s_j$"
    )
    axes[0].legend(loc="lower right", title=r"$\lambda_2=1$; dotted: 0.1")

    runs = tables["linear"].runs
    table = arms(tables["linear"])
    table = table[(table["rho"] == table["rho"].max()) & (table["train_size"] > table["inputs"])]
    best = chosen(table)
    where = tables["linear"].metrics
    where = where[(where["quantity"] == "top_share_of_truth")].set_index("run_id")["value"]
    runs = runs[runs["rho"] == runs["rho"].max()]
    places = runs.assign(share=runs["run_id"].map(where))
    for penalty in ("car", "inverse"):
        for truth in TRUTHS:
            ratios = log_ratios(best[best["truth"] == truth], penalty, "l2")
            if ratios.empty:
                continue
            x = places[places["truth"] == truth]["share"].mean() + (0.008 if penalty == "car" else -0.008)
            draw_interval(axes[1], x, mean_interval(ratios["value"]), penalty, truth == TRUTHS[0])
    shares = places.groupby("truth")["share"].mean().sort_values()
    place = -np.inf
    for truth, share in shares.items():
        place = max(share, place + 0.1)  # side by side
        axes[1].annotate(
            NAMES[str(truth)],
            (share, 1.0),
            (place, 1.08),
            xycoords=("data", "axes fraction"),
            textcoords=("data", "axes fraction"),
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0},
            ha="center",
            fontsize=7,
        )
    axes[1].axhline(0, color="0.5", linewidth=0.8, zorder=0)
    axes[1].set(xlabel="share of the signal in the first 5 components", ylabel=r"log RMSE over that of $\ell_2$")
    axes[1].legend(loc="upper left")
    return figure


def draw_interval(
    axis: Axes, x: float, estimate: Estimate, penalty: str, labelled: bool, vertical: bool = True
) -> None:
    """A point with its interval, where it has one."""
    low, high = (max(0.0, width) for width in (estimate.value - estimate.low, estimate.high - estimate.value))
    ends = None if np.isnan(estimate.low) else [[low], [high]]
    axis.errorbar(
        x if vertical else estimate.value,
        estimate.value if vertical else x,
        yerr=ends if vertical else None,
        xerr=None if vertical else ends,
        fmt=MARKERS[penalty],
        color=COLORS[penalty],
        markersize=3.5,
        elinewidth=0.8,
        label=NAMES[penalty] if labelled else None,
    )


def truth_groups(tables: Tables) -> list[tuple[str, pd.DataFrame]]:
    """The truths of the simulations of the first registration, with their arms."""
    simulated = arms(tables["alignment"])
    groups = [(rho, truth) for rho in sorted(simulated["rho"].unique(), reverse=True) for truth in TRUTHS]
    found = (
        (rho, truth, simulated[(simulated["rho"] == rho) & (simulated["truth"] == truth)]) for rho, truth in groups
    )
    return [(rf"{NAMES[truth]}, $\rho={rho:g}$", cell) for rho, truth, cell in found if len(cell)]


def forest_of_truths(tables: Tables) -> Figure:
    """Log ratios of test losses to that of l2, for each truth."""
    groups = truth_groups(tables)
    points = []
    for place, (_, table) in enumerate(groups):
        best = chosen(table)
        for k, penalty in enumerate(SHOWN):
            ratios = log_ratios(best, penalty, "l2")
            if not ratios.empty:
                points.append((place + 0.14 * (k - (len(SHOWN) - 1) / 2), penalty, by_split(ratios)))
    label = r"log of the test loss over that of $\ell_2$ (left: better than $\ell_2$)"
    return draw_forest([title for title, _ in groups], points, label)


def draw_forest(titles: list[str], points: list[tuple[float, str, Estimate]], label: str) -> Figure:
    """Intervals by lines of these titles; a point has its height, penalty and estimate."""
    figure, axis = plt.subplots(figsize=(TEXT_WIDTH, 0.5 + 0.36 * len(titles)))
    for place in range(1, len(titles), 2):
        axis.axhspan(place - 0.5, place + 0.5, color="0.96", zorder=0, linewidth=0)
    seen: set[str] = set()
    for y, penalty, estimate in points:
        draw_interval(axis, y, estimate, penalty, penalty not in seen, vertical=False)
        seen.add(penalty)
    axis.axvline(0, color="0.5", linewidth=0.8, zorder=0)
    axis.set(ylim=(len(titles) - 0.5, -0.5), xlabel=label)
    axis.set_yticks(range(len(titles)), titles)
    axis.tick_params(axis="y", length=0)
    axis.legend(ncols=max(len(seen), 1), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def forest_groups(tables: Tables) -> list[tuple[str, pd.DataFrame]]:
    """The lines of the forest: each cell of a design and each data set, with the chosen arms."""
    groups: list[tuple[str, pd.DataFrame]] = []
    try:
        simulated = tuned(tables, "simulated", "simulated_all")
        groups = [(SUBJECTS.get(name, name), cell) for name, cell in cells(simulated)]
    except Undecidable:
        pass
    for name in ("energy", "energy_small", "leukemia"):
        if name in tables and len(tables[name].runs):
            groups.append((NAMES[name], tuned(tables, name)))
    return groups


def forest_points(
    groups: list[tuple[str, pd.DataFrame]],
) -> Iterator[tuple[int, float, str, pd.DataFrame, Estimate]]:
    """The points of the forest: the place of its line, its own height, penalty, log ratios by unit, and their mean."""
    for place, (_, table) in enumerate(groups):
        references = STANDARD if "ridge+" in set(table["penalty"]) else REPORTED
        for k, penalty in enumerate(COMPARED):
            if penalty in set(table["penalty"]):
                pairs = differences(table, penalty, references)
                yield place, place + 0.18 * (k - (len(COMPARED) - 1) / 2), penalty, pairs, by_split(pairs)


def differences(table: pd.DataFrame, penalty: str, references: tuple[str, ...]) -> pd.DataFrame:
    """Log ratios of losses; differences of what is a log-loss already."""
    pairs = paired(table, penalty, references)
    return pairs.assign(value=pairs["loss"] - pairs["loss_best"]) if "test_log_loss" in pairs else pairs


FOREST_LABEL = "log of the loss over that of the best standard penalty (left: better)"


def forest(tables: Tables) -> Figure:
    """Covridge and Sparridge over the best standard penalty; open, Covridge over ridge with 5 strengths."""
    groups = forest_groups(tables)
    points = [(y, penalty, estimate) for _, y, penalty, _, estimate in forest_points(groups)]
    figure = draw_forest([title for title, _ in groups], points, FOREST_LABEL)
    for place, (_, table) in enumerate(groups):
        if "ridge" in set(table["penalty"]):
            estimate = by_split(differences(table, "covridge", ("ridge",)))
            axis = figure.axes[0]
            style = {"color": COLORS["covridge"], "fillstyle": "none", "markersize": 3.5}
            axis.plot([estimate.value], [place - 0.42], marker=MARKERS["covridge"], **style)  # type: ignore[arg-type]
    return figure


def strengths(tables: Tables) -> Figure:
    """The share of replicates in which cross-validation chooses each pair of strengths."""
    table = tuned(tables, "simulated")
    figure, axes = plt.subplots(1, 2, figsize=(TEXT_WIDTH, 2.6))
    for axis, penalty, second in zip(axes, ("covridge", "sparridge"), (r"$\lambda_2$", r"$\gamma$"), strict=True):
        mine = table[table["penalty"] == penalty]
        grid = sorted(set(mine["first"]) | set(mine["second"]))
        counts = pd.crosstab(mine["first"], mine["second"]).reindex(index=grid, columns=grid, fill_value=0)
        share = 100 * counts.to_numpy() / len(mine)
        image = axis.imshow(share, origin="lower", cmap="Blues", vmin=0)
        for (i, j), value in np.ndenumerate(share):
            dark = value > 0.6 * share.max()
            axis.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=7, color="white" if dark else "black")
        ticks = range(len(grid))
        axis.set_xticks(ticks, [f"{value:g}" for value in grid])
        axis.set_yticks(ticks, [f"{value:g}" for value in grid])
        axis.set(title=NAMES[penalty], xlabel=second, ylabel=r"$\lambda_1$")
        figure.colorbar(image, ax=axis, label="% of replicates", shrink=0.8)
    return figure


def theorem_quantiles(tables: Tables) -> Figure:
    """Measured against predicted quantiles of √n(b − β)."""
    figure, axes = plt.subplots(1, 2, figsize=(TEXT_WIDTH, 2.8))
    experiment = tables["theorems"]
    names = experiment.metrics["quantity"].str.extract(r"^(measured|predicted)_(.+)$")
    rows = experiment.metrics.assign(side=names[0], place=names[1]).dropna(subset="side")
    wide = rows.pivot_table(index=["run_id", "layer", "place"], columns="side", values="value").reset_index()
    wide = wide.merge(experiment.runs[["run_id", "scaling"]], on="run_id")
    for axis, penalty in zip(axes, ("covridge", "sparridge"), strict=True):
        mine = wide[wide["layer"].str.partition("/")[0] == penalty]
        for scaling, fill in (("slow", "none"), ("root", "full")):
            points = mine[mine["scaling"] == scaling]
            style = {"color": COLORS[penalty], "fillstyle": fill, "markersize": 2.5, "markeredgewidth": 0.5}
            words = r"$n^{-1/2}$" if scaling == "root" else r"$n^{-1/4}$"
            axis.plot(points["predicted"], points["measured"], MARKERS[penalty], **style, label=words, alpha=0.6)
        ends = [mine["predicted"].min(), mine["predicted"].max()]
        axis.plot(ends, ends, color="0.5", linewidth=0.8, zorder=0)
        axis.set(title=NAMES[penalty], xlabel="predicted quantile", ylabel="measured quantile")
        axis.legend(title="strengths")
    return figure


def bridge(tables: Tables) -> Figure:
    """Test RMSE and the share of the first components against l: no normalization, and batch normalization at norm
    1."""
    figure, axes = plt.subplots(2, 2, figsize=(TEXT_WIDTH, 3.6), sharex="col", sharey="row")
    free = arms(tables["alignment"])
    free = free[free["rho"] == free["rho"].max()]
    held = arms(tables["bridge_held"])
    for column, table in enumerate((free, held)):
        table = table[table["truth"] == "high"]
        none = table[table["penalty"] == "none"].assign(strength=0.0)
        for penalty in ("l2", "car", "inverse", "l1"):
            mine = pd.concat([none, table[table["penalty"] == penalty]])
            positive = mine.loc[mine["strength"] > 0, "strength"].min()
            for axis, quantity in zip(axes[:, column], ("test_rmse", "top_share"), strict=True):
                groups = mine.groupby("strength")[quantity]
                mean, margin = groups.mean(), groups.apply(lambda v: half_width(v.dropna()))
                x = np.where(mean.index == 0, positive / 5, mean.index)
                style = {"color": COLORS[penalty], "marker": MARKERS[penalty]}
                axis.errorbar(x[1:], mean[1:], yerr=margin[1:], **style, elinewidth=0.8, label=NAMES[penalty])
                axis.errorbar(x[:1], mean[:1], yerr=margin[:1], **style, elinewidth=0.8)
        zero = positive / 5
        for axis in axes[:, column]:
            axis.axvspan(zero / 1.6, zero * 1.6, color="0.92", zorder=0, linewidth=0)
            axis.set(xscale="log")
            ticks = [t for t in 10.0 ** np.arange(-4, 2) if zero * 2.5 < t < table["strength"].max() * 1.5]
            axis.set_xticks([zero, *ticks], ["0", *(f"${number(tick)}$" for tick in ticks)])
            axis.minorticks_off()
    axes[0, 0].set(title="no normalization", ylabel="test RMSE")
    axes[0, 1].set(title=r"batch normalization, $\|w\|=1$")
    axes[1, 0].set(xlabel=r"penalty $\lambda$", ylabel="share of the top 5\nin Var$(w'x)$")
    axes[1, 1].set(xlabel=r"penalty $\lambda$")
    figure.legend(*axes[0, 1].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def half_width(values: pd.Series) -> float:
    """Half the width of the interval of a mean; 0, which is not drawn, without one."""
    if len(values) < 2:
        return 0.0
    estimate = mean_interval(values)
    return estimate.high - estimate.value


def equilibrium_of_penalties(tables: Tables) -> Figure:
    """The squared angle per step against its prediction, relaxed or not; the shares of components in the random
    walk."""
    figure, axes = plt.subplots(1, 2, figsize=(TEXT_WIDTH, 2.6))
    table = arms(tables["bridge_free"])
    for penalty in ("l2", "car", "inverse", "l1"):
        mine = table[table["penalty"] == penalty]
        relaxed = mine["relaxations"] >= 5
        style = {"color": COLORS[penalty], "marker": MARKERS[penalty], "linestyle": ""}
        points = mine[relaxed]
        axes[0].plot(
            points["predicted_angle_squared"], points["angle_squared"], **style, label=NAMES[penalty], alpha=0.8
        )
        if not len(points):
            axes[0].plot([], [], **style, label=NAMES[penalty])
        others = mine[~relaxed]
        axes[0].plot(others["predicted_angle_squared"], others["angle_squared"], **style, fillstyle="none", alpha=0.8)
    ends = np.array([table["predicted_angle_squared"].min() / 1.5, table["predicted_angle_squared"].max() * 1.5])
    axes[0].plot(ends, ends, color="0.5", linewidth=0.8, zorder=0)
    axes[0].set(
        xscale="log",
        yscale="log",
        xlabel=r"predicted $2k\eta\lambda R(w)/r^2$",
        ylabel=r"measured mean angle$^2$",
    )
    axes[0].legend(title="hollow: not relaxed")

    walks = tables["walk"].metrics.merge(tables["walk"].runs[["run_id", "inputs", "rho"]], on="run_id")
    walks = walks[(walks["inputs"] == 50) & walks["quantity"].str.match(r"share_\d+$")]
    index = np.arange(50)
    d = np.linalg.eigvalsh(walks["rho"].iloc[0] ** np.abs(np.subtract.outer(index, index)).astype(float))
    component = walks["quantity"].str.removeprefix("share_").astype(int)
    penalties = walks["layer"].str.partition("/")[0]
    for penalty in ("l2", "car"):
        mean = walks["value"][penalties == penalty].groupby(component).mean()
        axes[1].plot(d, mean, MARKERS[penalty], color=COLORS[penalty], markersize=2.5, label=NAMES[penalty])
        axes[1].plot(d, theory.direction_shares(d, penalty), color=COLORS[penalty], linewidth=0.8)
    axes[1].set(
        xscale="log", yscale="log", xlabel="eigenvalue $d_j$ of $S$", ylabel="share of component $j$ in Var$(w'x)$"
    )
    axes[1].legend(title="lines: predicted")
    return figure
