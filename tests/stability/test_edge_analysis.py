"""The rules for the late part of a run, on synthetic probes."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from effective_lr.studies.stability.analysis import FEWEST_PROBES, derive, late_probes, settled

STEPS = 4000
LR = 0.05


def probes(**changes: Any) -> dict[str, Any]:
    """A run at the edge from step 1,000 on, probed every 40 steps."""
    steps = np.arange(40, STEPS + 1, 40)
    return {
        "step": steps,
        "sharpness": np.full(len(steps), 40.0),
        "sharpness_total": np.full(len(steps), 40.0),
        "degree": np.full(len(steps), 2.0),
        "alpha0": np.full(len(steps), 1.0),
        "alpha_eff": np.full(len(steps), 1.0),
        "beta": np.full(len(steps), 200.0),
        "displacement": np.full(len(steps), 0.1),
        "weight_norm_squared": np.full(len(steps), 4.0),
        **changes,
    }


def run_of(**changes: Any) -> dict[str, Any]:
    settings = {"run_id": "a", "lr": LR, "l2": 0.004, "steps": STEPS, "seed": 100, "diverged": None}
    return {**settings, "edge_step": 1000.0, **changes}


def derived(columns: dict[str, Any], run: dict[str, Any]) -> tuple[pd.DataFrame, pd.Series]:
    table = pd.DataFrame(columns).melt("step", var_name="quantity").assign(run_id="a", layer="")
    metrics, runs = derive(table, pd.DataFrame([run]))
    return metrics, runs.iloc[0]


def test_the_late_window_is_the_last_third_but_a_thousand_steps_after_the_edge() -> None:
    table = pd.DataFrame(probes()).set_index("step")
    for edge, first in [(np.nan, 2680), (1000.0, 2680), (2000.0, 3040), (2600.0, 3640), (2680.0, None), (3500.0, None)]:
        late = late_probes(table, STEPS, edge)
        assert late.empty if first is None else late.index[0] == first and len(late) >= FEWEST_PROBES


def test_a_run_that_oscillates_is_at_the_edge_and_settled_whatever_its_force() -> None:
    metrics, run = derived(probes(), run_of())
    assert set(metrics.columns) == {"run_id", "step", "layer", "quantity", "value"}
    assert run["at_edge"] and run["settled"] and run["reached_edge"]
    assert run["late_displacement"] == pytest.approx(0.1)
    assert run["late_edge_ratio"] == pytest.approx(1)
    assert run["late_pressure"] == pytest.approx(100 * 0.01)
    assert run["late_force"] == pytest.approx(1 - 2 * 0.004 * 2 * (2 / LR - 0.008))


def test_below_the_edge_a_run_is_settled_where_the_force_would_hardly_move_it() -> None:
    """Over 1,320 late steps of 0.05 the bound 0.05·S* is a force of 0.0303."""
    for force, rests in [(0.02, True), (-0.02, True), (0.05, False), (-0.05, False)]:
        still = probes(displacement=np.full(100, 1e-9), alpha_eff=np.full(100, force))
        _, run = derived(still, run_of(edge_step=np.nan))
        assert not run["at_edge"] and not run["reached_edge"]
        assert run["settled"] == rests
        assert run["edge_step"] == STEPS + 1


def test_the_displacement_counts_relative_to_the_norm_of_the_weights() -> None:
    table = pd.DataFrame(probes(displacement=np.full(100, 1.5e-5), alpha_eff=np.full(100, 9.0))).set_index("step")
    assert settled(table.assign(weight_norm_squared=1.0), LR, 0.0) == (True, True)
    assert settled(table.assign(weight_norm_squared=4.0), LR, 0.0) == (False, False)


@pytest.mark.parametrize("change", [{"diverged": 3900.0}, {"edge_step": 3500.0}])
def test_without_a_late_window_there_is_no_late_value(change: dict[str, float]) -> None:
    metrics, run = derived(probes(), run_of(**change))
    late = run[[name for name in run.index if name.startswith("late_") and name != "late_probes"]]
    assert late.isna().all()
    assert not run["settled"]
    assert (metrics["quantity"] == "edge_ratio").sum() == 100


def test_the_early_spread_is_that_of_the_second_half_of_a_thousand_steps_from_the_edge_on() -> None:
    wild = np.where(np.isin(np.arange(40, STEPS + 1, 40), range(1520, 2001, 40)), 0, 9) + 40.0 + np.arange(100) % 2
    _, run = derived(probes(sharpness_total=wild), run_of())
    assert run["early_spread"] == pytest.approx(np.std(np.arange(13) % 2, ddof=1) * LR / 2)
    for edge in (np.nan, 3400.0):
        assert np.isnan(derived(probes(), run_of(edge_step=edge))[1]["early_spread"])


def test_late_means_of_looks_are_those_of_the_late_window() -> None:
    looks = pd.DataFrame({"step": np.arange(2680, 4001, 20), "edge_pressure": 5.0, "edge_force": 4.0})
    looks.loc[looks["step"] <= 3000, "edge_pressure"] = 99.0
    table = pd.concat([pd.DataFrame(one).melt("step", var_name="quantity") for one in (probes(), looks)])
    metrics, runs = derive(table.assign(run_id="a", layer=""), pd.DataFrame([run_of(edge_step=2000.0)]))
    assert runs["late_edge_pressure"].iloc[0] == 5 and runs["late_edge_force"].iloc[0] == 4
    assert (metrics["quantity"] == "edge_ratio").sum() == 100  # of probes alone
