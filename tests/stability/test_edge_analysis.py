"""The rules for the late part of a run, on the published probes and at their bounds."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from effective_lr.evidence.tidy import Tables
from effective_lr.studies.stability.analysis import derive, settled


def summary(table: pd.DataFrame, run: pd.Series) -> dict[str, Any]:
    """The edge is the first probe with R > 1; late probes come after two thirds of the steps and 1,000 steps after the
    edge, at least ten; early ones from 500 to 1,000 steps after it, at least five."""
    probes = table.dropna(subset="sharpness").assign(edge_ratio=table["sharpness_total"] * run["lr"] / 2)
    edge = probes.index[probes["edge_ratio"] > 1].min()
    early = probes.loc[(probes.index > edge + 500) & (probes.index <= edge + 1000), "edge_ratio"]
    found = {"reached_edge": not np.isnan(edge), "edge_step": run["steps"] + 1 if np.isnan(edge) else edge}
    found["early_spread"] = early.std() if len(early) >= 5 else np.nan
    after = np.nanmax([2 / 3 * run["steps"], edge + 1000])
    late, star = probes[probes.index > after], 2 / run["lr"] - 2 * run["l2"]
    if len(late) < 10:
        return {**found, "at_edge": False, "settled": False, "late_sharpness": np.nan}
    x = np.sqrt((late["displacement"] ** 2).mean())
    at_edge = x > 1e-5 * np.sqrt(late["weight_norm_squared"].mean())
    change = abs(late["alpha_eff"].mean()) * run["lr"] * (late.index[-1] - late.index[0])
    means = table[table.index > after].drop(columns=["force", "pressure"]).mean().add_prefix("late_")
    force = (late["alpha0"] - 2 * run["l2"] * late["degree"] * star).mean()
    pressure = (late["beta"] / 2 * late["displacement"] ** 2).mean()
    found |= {"late_start": late.index[0], "late_spread": late["edge_ratio"].std(), "at_edge": at_edge}
    found |= {"settled": at_edge or change < 0.05 * star, "late_force": force, "late_pressure": pressure}
    return {**means, **found, "late_displacement": x}


def test_what_follows_from_the_published_probes_follows_by_the_rules(published: Tables) -> None:
    states = set()
    for metrics, runs in published.values():
        table = metrics.pivot(index=["run_id", "step"], columns="quantity", values="value")
        for _, run in runs.iterrows():
            expected = summary(table.loc[run["run_id"]], run)
            states.add((expected["at_edge"], expected["settled"]))
            for name in expected.keys() & set(runs):
                assert run[name] == pytest.approx(expected[name], rel=1e-9, nan_ok=True), (run["run_id"], name)
    assert states == {(True, True), (False, True), (False, False)}


def test_a_run_has_settled_where_the_force_would_hardly_move_it_and_x_counts_relative_to_the_weights() -> None:
    """Over 1,320 late steps of 0.05 the bound 0.05·S* is a force of 0.0303."""
    for force, rests in [(0.02, True), (-0.02, True), (0.05, False), (-0.05, False)]:
        late = pd.DataFrame({"alpha_eff": force, "displacement": 1.5e-5, "weight_norm_squared": 4.0}, [2680, 4000])
        assert settled(late, 0.05, 0.004) == (False, rests)
        assert settled(late.assign(weight_norm_squared=1.0), 0.05, 0.004) == (True, True)


@pytest.mark.parametrize("change", [{"diverged": 3900.0}, {"edge_step": 19_500.0}])
def test_without_a_late_window_there_is_no_late_value(published: Tables, change: dict[str, float]) -> None:
    metrics, runs = published["cnn"]
    _, found = derive(metrics[~metrics["quantity"].isin(["edge_ratio", "force", "pressure"])], runs.assign(**change))
    late = found[[name for name in found if name.startswith("late_") and name not in ("late_probes", "late_fraction")]]
    assert late.isna().all(axis=None) and not found["settled"].any()
    _, found = derive(metrics[:0], runs)  # without a single probe
    assert not found["settled"].any()
