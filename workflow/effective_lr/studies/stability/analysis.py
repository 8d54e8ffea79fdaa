"""What follows from the probes of a run: the late window, whether the run has settled, and its late means.

These rules were fixed before the study was trained. They read the rows alone: a change of one trains nothing.
"""

from typing import Any

import numpy as np
import pandas as pd

from effective_lr.studies.stability import theory

LATE = 2 / 3  # of the steps: late probes come after it, and after
AFTER_EDGE = 1_000  # steps from the edge
FEWEST_PROBES = 10  # of which a late value is made
EARLY = 500, 1_000  # steps from the edge: probes after the first of them, up to the second, are early
FEWEST_EARLY = 5
AT_EDGE = 1e-5  # least late rms displacement, relative to |w|
SETTLED = 0.05  # largest change of S that the force would still make over the late window, relative to S*

# Late means become columns late_<quantity>.
LATE_MEANS = [
    "edge_ratio",
    "sharpness",
    "degree",
    "alignment",
    "alpha0",
    "alpha_eff",
    "force",
    "pressure",
    "weight_norm_squared",
    "u_weight_share",
    "ntk_jitter",
    "ntk_drift",
    "ntk_distance",
    "spherical_sharpness",
    "angle_squared",
    "train_loss",
    "test_error",
    "displacement_range",
]
# Of looks at several directions: they, too, become columns late_<quantity>.
LOOKS = ["edge_force", "edge_pressure", "edge_pressure_diagonal", "edge_pressure_top", "edge_pressure_whole"]
LOOKS += ["edge_directions", *(f"edge_ratio_{number}" for number in range(1, 7))]


def by_step(metrics: pd.DataFrame, run: Any, quantity: str) -> pd.DataFrame:
    """The rows of one run, one line a step, at the steps that have the quantity; no line where none has."""
    table = metrics[metrics["run_id"] == run["run_id"]].pivot_table(index="step", columns="quantity", values="value")
    return table[table[quantity].notna()] if quantity in table else table.iloc[:0]


def probes(metrics: pd.DataFrame, run: Any) -> pd.DataFrame:
    """The probes of one run, with what follows from each; no line for a run without a probe.

    Beside the quantities of training: edge_ratio R = S_F·η/2; force α* = α0 − 2λAS*; pressure (β/2)x².
    """
    table = by_step(metrics, run, "sharpness")
    if table.empty:
        return table
    return table.assign(
        edge_ratio=table["sharpness_total"] * run["lr"] / 2,
        force=theory.drift(table["alpha0"], table["degree"], theory.edge(run["lr"], run["l2"]), run["l2"]),
        pressure=table["beta"] / 2 * table["displacement"] ** 2,
    )


def late_probes(table: pd.DataFrame, steps: int, edge_step: float) -> pd.DataFrame:
    """The probes, or looks, of the late window; none where they are fewer than FEWEST_PROBES. `edge_step` is NaN for
    never."""
    start = np.nanmax([LATE * steps, edge_step + AFTER_EDGE])
    late = table[table.index > start]
    return late if len(late) >= FEWEST_PROBES else late.iloc[:0]


def settled(late: pd.DataFrame, lr: float, l2: float) -> tuple[bool, bool]:
    """Whether a run is at the edge, and whether it has settled there or below.

    At the edge: the late rms displacement is above AT_EDGE·|w|. Settled: at the edge, or the mean force α_eff would
    change S by less than SETTLED·S* if it acted all through the late window.
    """
    if late.empty:
        return False, False
    norm = np.sqrt(late["weight_norm_squared"].mean())
    if np.sqrt((late["displacement"] ** 2).mean()) > AT_EDGE * norm:
        return True, True
    change = abs(late["alpha_eff"].mean()) * lr * (late.index.max() - late.index.min())
    return False, bool(change < SETTLED * theory.edge(lr, l2))


def early_spread(table: pd.DataFrame, edge_step: float) -> float:
    """The sd of R over the early probes; NaN where they are fewer than FEWEST_EARLY."""
    early = table[(table.index > edge_step + EARLY[0]) & (table.index <= edge_step + EARLY[1])]
    return float(early["edge_ratio"].std(ddof=1)) if len(early) >= FEWEST_EARLY else np.nan


def late_values(table: pd.DataFrame, looks: pd.DataFrame, run: Any) -> dict[str, Any]:
    """Edge, early and late values and verdict of one run; they are NaN where there is no such window, or the run
    diverged.

    edge_step is steps + 1 for a run that never got there.
    """
    found = run.get("edge_step", np.nan)
    values: dict[str, Any] = {
        "reached_edge": bool(np.isfinite(found)),
        "edge_step": float(found) if np.isfinite(found) else run["steps"] + 1.0,
        "late_probes": 0,
        "at_edge": False,
        "settled": False,
        "late_start": np.nan,
        "late_spread": np.nan,  # sd of R
        "late_displacement": np.nan,  # rms of x
        "early_spread": np.nan,
        **{f"late_{quantity}": np.nan for quantity in [*LATE_MEANS, *LOOKS]},
    }
    if table.empty or pd.notna(run["diverged"]):
        return values
    values["early_spread"] = early_spread(table, found)
    late = late_probes(table, run["steps"], found)
    if late.empty:
        return values
    at_edge, is_settled = settled(late, run["lr"], run["l2"])
    return values | {
        "late_probes": len(late),
        "at_edge": at_edge,
        "settled": is_settled,
        "late_start": float(late.index.min()),
        "late_spread": late["edge_ratio"].std(ddof=1),
        "late_displacement": np.sqrt((late["displacement"] ** 2).mean()),
        **late_means(late, LATE_MEANS),
        **late_means(late_probes(looks, run["steps"], found), LOOKS),
    }


def late_means(late: pd.DataFrame, quantities: list[str]) -> dict[str, float]:
    return {f"late_{quantity}": late[quantity].mean() for quantity in quantities if quantity in late}


def derive(metrics: pd.DataFrame, runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Adds rows edge_ratio, force and pressure for every probe, and the columns of `late_values` for every run."""
    added, lines = [metrics], []
    for _, run in runs.iterrows():
        table = probes(metrics, run)
        lines.append(late_values(table, by_step(metrics, run, "edge_pressure"), run))
        if not table.empty:
            rows = (
                table[["edge_ratio", "force", "pressure"]].melt(ignore_index=False, var_name="quantity").reset_index()
            )
            added.append(rows.assign(run_id=run["run_id"], layer=""))
    columns = pd.DataFrame(lines, index=runs.index)
    return pd.concat(added, ignore_index=True), runs.assign(**{name: columns[name] for name in columns})


def critical(runs: pd.DataFrame) -> float:
    """The fitted λ_c of one network and learning rate: the median of R·λ over settled runs below the edge, or NaN."""
    below = runs[runs["settled"].astype(bool) & ~runs["at_edge"].astype(bool) & (runs["l2"] > 0)]
    return float((below["late_edge_ratio"] * below["l2"]).median()) if len(below) else np.nan


def is_steady(runs: pd.DataFrame) -> pd.Series:
    """Whether the top direction alone holds the force, to a hundredth."""
    return (runs["late_pressure"] / runs["late_alpha_eff"] - 1).abs() < 0.01
