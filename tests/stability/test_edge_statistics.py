"""Late values and every statistic of the chapter found again in published rows by pandas alone; what decides nothing;
figures, tables and numbers."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from effective_lr.document.table import Results
from effective_lr.engine.contents import load_claims
from effective_lr.evidence import tidy
from effective_lr.evidence.estimates import Estimate, Undecidable
from effective_lr.evidence.tidy import Experiment, Tables
from effective_lr.evidence.verdicts import Evidence, decide, since, statistics_of
from effective_lr.studies.stability import STUDY, figures, numbers, statistics, tables
from effective_lr.studies.stability.analysis import derive, settled
from shared import ROOT, published_layout, require_calibrated

CLAIMS = load_claims(ROOT / "paper" / "stability" / "claims.yaml")
STATISTICS = statistics_of(STUDY)
CHECKS = pd.read_parquet(ROOT / "results/published/stability/checks.parquet")


@pytest.fixture(scope="module")
def published() -> Tables:
    layout = published_layout()
    return tidy.read(layout.chapters["stability"], layout.tables("stability"))


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


def changed(given: Tables, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Tables:
    return Tables({name: Experiment(metrics, change(runs)) for name, (metrics, runs) in given.items()})


def before_the_edge(experiment: Experiment) -> pd.DataFrame:
    """The probes after step 150 and before the edge, in the order of their steps, with the settings of their runs."""
    table = experiment.metrics.pivot(index=["run_id", "step"], columns="quantity", values="value").reset_index()
    table = table.dropna(subset="sharpness").merge(experiment.runs, on="run_id", suffixes=("", "_of_run"))
    return table[(table["step"] > 150) & (table["step"] < table["edge_step_of_run"])]


def drift_slope(experiment: Experiment) -> pd.Series:
    """Of measured dS/dt on α0 − 2λAS, between neighbouring probes, through 0."""
    table = before_the_edge(experiment)
    table["force"] = table["alpha0"] - 2 * table["l2"] * table["degree"] * table["sharpness"]
    change = table.groupby("run_id")[["sharpness", "step"]].diff()
    predicted = (table["force"] + table.groupby("run_id")["force"].shift()) / 2
    products = pd.DataFrame({"seed": table["seed"], "square": predicted**2})
    products["product"] = predicted * change["sharpness"] / (table["lr"] * change["step"])
    sums = products.groupby("seed").sum()
    return sums["product"] / sums["square"]


def norm_rate(experiment: Experiment) -> pd.Series:
    """The slope of log|w|² on the step over −4ηλ, mean over λ > 0."""
    runs = before_the_edge(experiment).query("l2 > 0").groupby(["seed", "lr", "l2"])
    slopes = {key: stats.linregress(some["step"], np.log(some["weight_norm_squared"])).slope for key, some in runs}
    return pd.Series({key: slope / (-4 * key[1] * key[2]) for key, slope in slopes.items()}).groupby(level=0).mean()


def decay_rate(experiment: Experiment) -> pd.Series:
    """Σ(ΔS − Δt·α₀) over Σ4ηλ|u_w|²S, mean over λ > 0."""
    rates = {}
    for key, table in before_the_edge(experiment).query("l2 > 0").groupby(["seed", "l2"]):
        time, sharpness = table["lr"] * table["step"], table["sharpness"]
        change = sharpness.iloc[-1] - sharpness.iloc[0] - np.trapezoid(table["alpha0"], time)
        rates[key] = change / np.trapezoid(4 * table["l2"] * table["u_weight_share"] * sharpness, time)
    return pd.Series(rates).groupby(level=0).mean()


def sharpness_at_equal_times(given: Tables, *names: str) -> list[pd.Series]:
    """The mean S at λ = 0.008 by seed, over the late part that both experiments have in common, in units of ηt."""
    found = []
    for name in names:
        metrics, runs = given[name]
        runs = runs[runs["l2"] == 0.008]
        found.append(metrics[metrics["quantity"] == "sharpness"].merge(runs, on="run_id"))
    start = max((table["late_start"] * table["lr"]).max() for table in found)
    end = min((table["steps"] * table["lr"]).min() for table in found)
    times = [(table["step"] * table["lr"]).between(start - 1e-6, end + 1e-6) for table in found]
    return [table[time].groupby("seed")["value"].mean() for table, time in zip(found, times, strict=True)]


def means_by_seed(given: Tables) -> tuple[dict[tuple[str, str], pd.Series], dict[tuple[str, str], pd.Series]]:
    """What each statistic is the mean of; and where it is a geometric mean."""

    def late(name: str, column: str) -> pd.DataFrame:
        runs = given[name].runs.query("seed >= 200")
        return runs.assign(value=runs.eval(column)).pivot(index="seed", columns="l2", values="value")

    def over(name: str, column: str, l2: float) -> pd.Series:
        return late(name, column)[l2] / late(name, column)[0.0]

    logs = np.log(late("mlp", "late_sharpness").loc[:, 0.008:].dropna(thresh=2))
    slopes = logs.apply(lambda row: stats.linregress(np.log(row.dropna().index), row.dropna()).slope, axis=1)
    weak, normalized = late("mlp", "late_edge_ratio").loc[:, :0.002], late("batch", "late_edge_ratio").drop(columns=0.0)
    law = late("mlp", "2 * l2 * late_degree * late_sharpness / late_alpha0").loc[:, 0.008:]
    is_at_edge = late("mlp", "at_edge").drop(columns=0.0).fillna(True).all()
    diagonal = late("mlp", "late_edge_pressure_diagonal / late_edge_force")
    above, below = sharpness_at_equal_times(given, "mlp_other_lr", "mlp")
    means = {
        ("drift_slope", "CNN"): drift_slope(given["cnn"]),
        ("late_degree", "cross-entropy at 0.002"): late("cross_entropy", "late_degree")[0.002],
        ("edge_ratio_at_weak_decay", "MLP"): weak[(weak.mean() - 1).abs().idxmax()],
        ("edge_ratio_at_strong_decay", "MLP"): late("mlp", "late_edge_ratio")[0.008],
        ("lowest_edge_ratio", "BN"): normalized[normalized.mean().idxmin()],
        ("plateau_slope", "MLP"): slopes,
        ("edge_directions", "MLP at 0.004"): late("mlp", "late_edge_directions")[0.004],
        ("norm_rate", "WN"): norm_rate(given["weight"]),
        ("decay_rate", "BN"): decay_rate(given["batch"]),
    }
    ratios = {
        ("edge_delay", "MLP"): over("mlp", "edge_step", 0.004),
        ("edge_delay", "CNN"): over("cnn", "edge_step", 0.008),
        ("edge_delay", "BN"): over("batch", "edge_step", 0.005),
        ("late_sharpness_ratio", "cross-entropy"): over("cross_entropy", "late_sharpness", 0.002),
        ("plateau_law", "MLP"): law[np.log(law).mean().abs().idxmax()],
        ("plateau_across_lr", "MLP"): above / below,
        ("degree_ratio", "CNN"): late("cnn", "late_degree")[0.008] / late("mlp", "late_degree")[0.008],
        ("early_spread_ratio", "CNN"): over("cnn", "early_spread", 0.008),
        ("late_spread", "MLP at 0.004"): late("mlp", "late_spread")[0.004],
        ("balance", "MLP at 0"): late("mlp", "late_edge_pressure / late_edge_force")[0.0],
        ("balance_of_top", "MLP at 0.001"): late("mlp", "late_edge_pressure_top / late_edge_force")[0.001],
        ("balance_without_products", "MLP at 0.004"): diagonal[0.004],
        ("displacement_ratio", "MLP"): over("mlp", "late_displacement", 0.008),
        ("jitter_ratio", "one step"): over("mlp", "late_ntk_jitter", 0.008),
        ("kernel_drift_ratio", "below the edge"): over("mlp", "late_ntk_drift", 0.008),
        ("kernel_drift_ratio", "at the edge"): over("mlp", "late_ntk_drift", is_at_edge[is_at_edge].index.max()),
    }
    return means, ratios


def test_every_statistic_is_found_again_in_the_published_rows(published: Tables) -> None:
    """Means over seeds, or geometric means, with their t intervals."""
    means, ratios = means_by_seed(published)
    for (statistic, subject), values in [*means.items(), *ratios.items()]:
        into, back = (np.log, np.exp) if (statistic, subject) in ratios else (np.asarray, np.asarray)
        logs = into(values.dropna())
        margin = stats.t.ppf(0.95, len(logs) - 1) * stats.sem(logs)
        expected = back(np.mean(logs) + margin * np.array([0, -1, 1]))
        evidence = since(Evidence(published, CHECKS), 0 if statistic == "plateau_across_lr" else 200)
        found = STATISTICS[statistic](evidence, subject)
        assert found[:3] == pytest.approx(expected, rel=1e-8), (statistic, subject)
    assert {name for name, _ in means | ratios} == set(STATISTICS)


EARLY = {"edge_delay", "drift_slope", "norm_rate", "decay_rate", "early_spread_ratio", "invariant_degree"}


def test_a_late_value_of_a_run_that_has_not_settled_or_diverged_decides_nothing(published: Tables) -> None:
    for change in ({"settled": False}, {"diverged": 50.0}):
        evidence = Evidence(changed(published, lambda runs, change=change: runs.assign(**change)), CHECKS)
        for name, claim in CLAIMS.items():
            for part in decide(name, claim, evidence, STATISTICS)["parts"]:
                assert part["statistic"] in EARLY or re.search(r"\d+ of \d+ runs", part["why"]), part


def test_without_runs_without_an_edge_and_below_it_nothing_is_decided(published: Tables) -> None:
    nothing = Evidence(changed(published, lambda runs: runs[:0]), CHECKS[:0])
    for name, claim in CLAIMS.items():
        decided = decide(name, claim, nothing, STATISTICS)
        assert all(part["value"] is None and part["why"] for part in [*decided["parts"], *decided["explored"]])
    away = changed(published, lambda runs: runs.assign(reached_edge=False, at_edge=False))
    for statistic, subject in [("edge_delay", "MLP"), ("balance", "MLP at 0.001")]:
        with pytest.raises(Undecidable, match="edge"):
            STATISTICS[statistic](Evidence(away, CHECKS), subject)


def draw_farthest(rng: np.random.Generator, truth: float) -> Estimate:
    some = rng.normal(truth, 0.5, 4)
    both = pd.concat([pd.DataFrame({"l2": 0.01, "value": some}), pd.DataFrame({"l2": 0.02, "value": some / 10})])
    return statistics.farthest(both, "value", lambda value: value)


def test_wrong_verdicts_are_as_rare_as_the_intervals_allow() -> None:
    require_calibrated(draw_farthest, (-1.0, 1.0), 1.0, 0.0)


def test_figures_are_drawn_where_nothing_has_settled(published: Tables) -> None:
    nowhere = changed(published, lambda runs: runs.assign(settled=False, at_edge=False, early_spread=np.nan))
    for draw in (figures.sharpness, figures.phase, figures.mechanism, figures.oscillation, figures.kernel):
        for axis in draw(nowhere).axes:
            assert axis.lines or axis.texts  # no panel is empty
            assert axis.get_xlabel()


@pytest.fixture
def results(published: Tables) -> Results:
    return Results(STUDY, published, {name: {"verdict": "undecided", "parts": []} for name in CLAIMS}, CHECKS)


def test_the_table_has_a_row_for_every_setting_and_marks_what_has_not_settled(results: Results) -> None:
    table = tables.edge(results)
    settings = results.tables.runs()[["network", "normalization", "loss", "lr", "l2"]].drop_duplicates()
    assert sum(len(row) == len(table.header) for row in table.rows) == len(settings)
    marks = table.latex().count("*")
    unsettled = changed(Tables(cnn=results.tables["cnn"]), lambda runs: runs.assign(settled=False))
    assert tables.edge(results._replace(tables=Tables(results.tables | unsettled))).latex().count("*") == marks + 2


def test_numbers_of_the_text_are_those_of_the_tables(results: Results) -> None:
    found = numbers.numbers(results)
    mlp, weight = (results.tables[name].runs for name in ("mlp", "weight"))
    below, late = mlp.query("settled and not at_edge and l2 > 0"), mlp.query("at_edge and l2 == 0.002")
    assert float(found["critical/MLP"]) == pytest.approx((below["late_edge_ratio"] * below["l2"]).median(), abs=6e-5)
    assert np.isnan(figures.critical(results.tables["cnn"].runs))
    assert found["lr/CNN"] == "0.1" and int(found["runs/unsettled"]) == (~results.tables.runs()["settled"]).sum()
    assert float(found["force/0.002"]) == pytest.approx(stats.gmean(late["late_edge_force"].dropna()), abs=0.005)
    angles = weight.query("settled and l2 > 0").eval("(late_angle_squared / (4 * lr * l2)) ** 0.5")
    assert float(found["angle/WN"]) == pytest.approx(angles.mean(), abs=0.005)
    assert int(found["edge/with_decay"]) == (mlp["at_edge"] & (mlp["l2"] > 0)).sum() + 5  # and five CNNs
    uneven = mlp.assign(late_pressure=lambda runs: 0.5 * runs["late_alpha_eff"])
    assert numbers.steady(uneven)["steady/with_decay"] == "0"


def test_the_error_of_a_sum_is_that_of_the_trapezoidal_rule() -> None:
    for points in (9, 10):
        time = np.linspace(0, 1, points)[-9:]
        error = np.trapezoid(3 * time**2, time) - (time[-1] ** 3 - time[0] ** 3)
        assert abs(numbers.error_of_sum(3 * time**2, time)) == pytest.approx(error)
