"""Statistics give what the theory says where the theory holds by construction, and notice where it does not."""

import re
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from effective_lr.document.macros import macros_of
from effective_lr.document.table import Results
from effective_lr.engine.contents import load_claims, load_contents
from effective_lr.engine.study import load
from effective_lr.evidence import verdicts
from effective_lr.evidence.estimates import Estimate, Undecidable
from effective_lr.evidence.tidy import Experiment, Tables
from effective_lr.evidence.verdicts import NEEDS_STUDY, NOT_REPRODUCED, REPRODUCED, UNDECIDED, Evidence, judge
from effective_lr.studies.manifold import analysis, figures, statistics, theory
from effective_lr.studies.manifold import tables as shown
from effective_lr.studies.manifold.bijection import decoupled, matched_angle
from effective_lr.studies.manifold.settings import Run
from effective_lr.studies.manifold.training import evaluation_steps, probe_steps
from shared import require_calibrated

from .conftest import ROOT, TINY

BASE: dict[str, Any] = {
    **TINY,
    "steps": 1200,
    "decay_per_step": 1 / 120,
    "probes": 40,
    "evaluations": 8,
    "vocabulary": 84,
}
HALF = {"decay_per_step": 1 / 480}  # AdamW's equilibrium at half the angle
NO_CHECKS = pd.DataFrame({"check": [], "subject": [], "seed": [], "value": [], "holds": []})
CLAIMS = load_claims(ROOT / "paper/manifold/claims.yaml")
STATISTICS = verdicts.statistics_of(load("manifold"))
GRID = (1 / 64, 1 / 16, 1 / 4, 1.0)
SEEDS = (200, 201, 202)
Rows = list[tuple[int, str, str, float]]


def ideal(run: Run, loss: float, residual: float = 1.0, error: float = 0.0) -> Rows:
    """The rows of a run that does exactly what theory says, with the given late loss and residual RMS; the balance is
    off by a relative error."""
    theta = float(matched_angle(run.decay_per_step, run.beta1)) * run.lr_factor**0.5
    e, start = run.decay_per_step * run.lr_factor, run.initial_norm / run.lr_factor**0.5
    rows: Rows = []
    blocks = [f"block{n}" for n in range(1, run.layers + 1)]
    matrices = [f"{block}.{kind}" for block in blocks for kind in analysis.MATRICES]

    def angle_and_norm(step: int) -> tuple[float, float]:
        if run.is_constrained:
            return float(np.arctan(theta)), 1.0
        if run.optimizer == "adam0":
            norm = float(np.sqrt(1 + 2 * e * step))
            return theta / norm, norm
        norm = float(theory.adamw_norm(step - 1, e, start)) * run.lr_factor**0.5
        return float(theory.adamw_angle(step, e, start)), norm

    for step in sorted(probe_steps(run)):
        angle, norm = angle_and_norm(step)
        for name in [*matrices, "embedding", "head"]:
            rows += [(step, name, "angle", angle), (step, name, "norm_ratio", norm)]
        growth = 1 + (residual - 1) * step / run.steps
        for name in ("input", *blocks):
            rows += [(step, name, "residual_rms", growth), (step, name, "residual_bound", 50.0 * growth)]
            rows.append((step, name, "bound_used", 0.5))
    late = [angle_and_norm(step) for step in range(run.late_start + 1, run.steps + 1)]
    angle, norm = (float(np.sqrt(np.mean(np.square(values)))) for values in zip(*late, strict=True))
    for name in [*matrices, "embedding", "head"]:
        rows += [(run.steps, name, "late_angle", angle), (run.steps, name, "late_norm_ratio", norm)]
    for name in matrices if run.optimizer == "adamw" else ():
        rms = 1 / np.sqrt(run.width * (4 if name.endswith("down") else 1))
        lr, decay = decoupled(rms, float(matched_angle(run.decay_per_step, run.beta1)), run.beta1)
        is_free = run.rms_norm == "none" or (run.rms_norm == "pre" and name.split(".")[1] not in ("query", "key"))
        noise, memory, radial = 3.0, -0.05, 0.2 * lr if is_free else 0.0
        right = lr * run.lr_factor * (noise + 18 * memory)
        terms = {"noise": noise, "memory": memory, "radial": radial}
        terms["weighted_square"] = (right * (1 + error) - 2 * radial) / (2 * decay)
        rows += [(run.steps, name, f"late_{what}", float(value)) for what, value in terms.items()]
    rows += [(run.steps, block, "late_residual_rms", residual) for block in blocks]
    early = [(step, "", "validation_loss", 9.0) for step in evaluation_steps(run) if step <= run.late_start]
    return [
        *rows,
        *early,
        *((step, "", "validation_loss", loss) for step in evaluation_steps(run) if step > run.late_start),
        (run.steps, "", "late_validation_loss", loss),
    ]


def experiment(runs: list[tuple[Run, Rows]]) -> Experiment:
    """Tables of runs and their rows."""
    metrics, lines = [], []
    for run, rows in runs:
        metrics.append(pd.DataFrame(rows, columns=["step", "layer", "quantity", "value"]).assign(run_id=run.run_id))
        loss = next(value for *_, what, value in rows if what == "late_validation_loss")
        line = {**run.model_dump(), "run_id": run.run_id, "late_validation_loss": loss, "diverged": np.nan}
        lines.append({**line, "seconds": 1.0})
    return Experiment(*analysis.derive(pd.concat(metrics, ignore_index=True), pd.DataFrame(lines)))


def make(optimizer: str, rms_norm: str, seed: int, **settings: Any) -> Run:
    return Run(**{**BASE, "optimizer": optimizer, "rms_norm": rms_norm, "seed": seed, **settings})


def loss_at(optimizer: str, rms_norm: str, f: float) -> float:
    """A made-up loss: best at f = 1/4 with a mild slope, steep for AdamW."""
    distance = abs(np.log(f) / np.log(4) + 1)
    return 1.9 + (0.3 if optimizer == "adamw" else 0.1) * distance + (0.02 if rms_norm == "none" else 0)


@pytest.fixture(scope="module")
def tables() -> Tables:
    """A study in which all that the chapter claims is true."""
    draws = np.random.default_rng(0)
    matched, starts, free, balance = [], [], [], []
    for seed in SEEDS:
        noise = iter(draws.normal(0, 0.004, 200))
        for name in ("adamw", "adamh", "macro-F", "muonh"):
            for f in GRID:
                run, loss = make(name, "pre", seed, lr_factor=f), loss_at(name, "pre", f)
                loss = loss_at("adamh", "pre", f) if (name, f) == ("adamw", 1.0) else loss
                matched.append((run, ideal(run, loss + next(noise))))
        matched.append((run := make("adamw", "pre", seed, **HALF), ideal(run, 1.9 + next(noise))))
        matched.append((run := make("adam0", "pre", seed), ideal(run, 2.0)))
        for norm in (4.0, 1.0):
            starts.append((run := make("adamw", "every", seed, initial_norm=norm), ideal(run, 2.0)))
        for place, settings in [("every", HALF), ("every", {}), ("pre", HALF), ("pre", {})]:
            balance.append((run := make("adamw", place, seed, **settings), ideal(run, 2.0, error=next(noise))))
        for f in (*GRID, 4.0):
            for name in ("adamw", "adam0", "adamh", "macro-F", "macro-S"):
                run, residual = make(name, "none", seed, lr_factor=f), 900.0 if name == "adam0" else 1.5
                free.append((run, ideal(run, loss_at(name, "none", f) + next(noise), residual * (1 + next(noise)))))
        run = make("adamw", "none", seed, lr_factor=0.25, initial_norm=0.5)
        free.append((run, ideal(run, 1.95, error=next(noise))))
    found = {"matched": matched, "starts": starts, "norm_free": free, "balance": balance}
    return Tables({name: experiment(runs) for name, runs in found.items()})


def checks() -> pd.DataFrame:
    """Every check in the middle of its tolerance; those of X5 are tested with the theory."""
    parts = [part for claim in CLAIMS.values() for part in claim.parts if part.check]
    rows = [(part.check, part.subject, seed, np.clip(np.mean(part.within), -1, 1)) for part in parts for seed in (1, 2)]
    return pd.DataFrame(rows, columns=["check", "subject", "seed", "value"])


def decide(name: str, tables: Tables) -> dict[str, Any]:
    return verdicts.decide(name, CLAIMS[name], Evidence(tables, checks()), STATISTICS)


def measure(name: str, subject: str, tables: Tables) -> Estimate:
    estimate: Estimate = STATISTICS[name](Evidence(tables, NO_CHECKS), subject)
    return estimate


def changed(tables: Tables, name: str, quantity: str, factor: float, layer: str = "", **settings: Any) -> Tables:
    """The tables with a quantity of some runs of an experiment multiplied, or their late losses."""
    metrics, runs = tables[name]
    ids = analysis.select(runs, **settings)["run_id"]
    chosen = metrics["run_id"].isin(ids) & (metrics["quantity"] == quantity) & metrics["layer"].str.contains(layer)
    metrics = metrics.assign(value=metrics["value"].where(~chosen, factor * metrics["value"]))
    if quantity == "validation_loss":
        loss = runs["late_validation_loss"]
        runs = runs.assign(late_validation_loss=loss.where(~runs["run_id"].isin(ids), factor * loss))
    return Tables({**tables, name: Experiment(*analysis.derive(metrics, runs.drop(columns="lost")))})


def test_what_is_true_is_reproduced(tables: Tables) -> None:
    for name in ("X1", "X2", "X3", "X4", "X7"):
        found = decide(name, tables)
        assert found["verdict"] == REPRODUCED, verdicts.as_text(found)


# What makes each part false: experiment, quantity, factor, layer, settings of the runs.
FALSE: dict[tuple[str, str], tuple[Any, ...]] = {
    ("angle_error", "adamh"): ("matched", "angle", 1.1, r"block1\.up", {"optimizer": "adamh"}),
    ("angle_error", "macro-F"): ("norm_free", "late_angle", 0.9, r"block2\.up", {"optimizer": "macro-F"}),
    ("late_angle", "every"): ("starts", "late_angle", 1.2, "", {}),
    ("late_angle", "pre"): ("matched", "late_angle", 1.4, "", {}),
    ("early_angle", "from_4R"): ("starts", "angle", 4.0, "", {"initial_norm": 4.0}),
    ("relaxation_rate", "from_4R"): ("starts", "late_norm_ratio", 1.6, "", {"initial_norm": 4.0}),
    ("loss_difference", "theta_0"): ("matched", "validation_loss", 1.1, "", {"optimizer": "adamw", "lr_factor": 1.0}),
    ("loss_difference", "half_theta_0"): ("matched", "validation_loss", 1.1, "", HALF),
    ("norm_exponent", "adamw"): ("norm_free", "late_norm_ratio", 2.0, "", {"optimizer": "adamw", "lr_factor": 0.25}),
    **{
        ("residual_exponent", name): ("norm_free", "late_residual_rms", 9.0, "", {"optimizer": name, "lr_factor": 1.0})
        for name in ("adamh", "macro-F", "macro-S")
    },
    **{
        ("norm_free_gap", name): ("norm_free", "validation_loss", 1.2, "", {"optimizer": name})
        for name in ("adamh", "macro-F", "macro-S")
    },
    **{
        ("sensitivity_difference", name): (
            *("norm_free", "validation_loss", 1.6, ""),
            {"optimizer": name, "lr_factor": (1 / 64, 1.0)},
        )
        for name in ("adamh", "macro-F", "macro-S")
    },
    ("balance", "every"): ("balance", "late_weighted_square", 1.2, "down", HALF | {"rms_norm": "every"}),
    ("balance", "pre"): ("balance", "late_noise", 1.2, "query", HALF | {"rms_norm": "pre"}),
}


def test_what_is_false_is_not_reproduced(tables: Tables) -> None:
    for name in ("X1", "X2", "X3", "X4", "X7"):
        for part in CLAIMS[name].parts:
            if part.statistic in ("", "residual_growth", "angle_trend"):  # growth has its own test
                continue
            where, quantity, factor, layer, settings = FALSE[part.statistic, part.subject]
            found = measure(part.statistic, part.subject, changed(tables, where, quantity, factor, layer, **settings))
            assert judge(found, part.within)[0] == NOT_REPRODUCED, (part, found)


def test_growth_is_that_of_the_last_probe_or_the_largest_before_a_loss(tables: Tables) -> None:
    run = make("adam0", "none", 0)

    def growth(step: int) -> float:
        return (1 + 899 * step / 1200) / (1 + 899 / 1200)  # of the made-up residuals, from step 1

    assert measure("residual_growth", "adam0", tables).value == pytest.approx(growth(1200), rel=0.02)
    lost = changed(tables, "norm_free", "validation_loss", 3.0, optimizer="adam0")
    first = min(step for step in evaluation_steps(run) if step > run.late_start)
    before = max(step for step in probe_steps(run) if step <= first)
    found = measure("residual_growth", "adam0", lost)
    assert found.value == pytest.approx(growth(before), rel=0.02)
    assert judge(found, (10, np.inf))[0] == REPRODUCED
    assert judge(found, (0, 3))[0] == NOT_REPRODUCED


def test_a_run_is_lost_at_two_successive_late_evaluations_above_a_uniform_guess(tables: Tables) -> None:
    metrics, runs = tables["matched"]
    assert runs["lost"].isna().all()  # though each has early evaluations of 9 nats
    one = runs["run_id"].iloc[0]
    steps = [step for step in evaluation_steps(make("adamw", "pre", 0)) if step > 600]
    for bad, expected in [
        (steps[2:3], np.nan),
        ([steps[2], steps[4]], np.nan),
        (steps[2:4], steps[2]),
        (steps[-2:], steps[-2]),
    ]:
        high = (metrics["run_id"] == one) & (metrics["quantity"] == "validation_loss") & metrics["step"].isin(bad)
        found = analysis.lost_steps(metrics.assign(value=metrics["value"].where(~high, np.log(84) + 0.1)), runs)
        assert found.iloc[0] == expected or (np.isnan(found.iloc[0]) and np.isnan(expected))
        assert found.iloc[1:].isna().all()
    ended = analysis.lost_steps(metrics, runs.assign(diverged=7))
    assert (ended == 7).all()


def test_a_lost_run_counts_as_a_uniform_guess(tables: Tables) -> None:
    lost = changed(tables, "norm_free", "validation_loss", 3.0, optimizer="adamh", lr_factor=4.0)
    assert measure("finishing", "adamh", lost)[:1] == (12.0,)
    assert measure("norm_free_gap", "adamh", lost) == measure("norm_free_gap", "adamh", tables)  # a stress test
    for optimizer in ("adamh", "macro-F"):  # lost everywhere: a guess at every f, which is no small sensitivity
        lost = changed(tables, "norm_free", "validation_loss", 3.0, optimizer=optimizer)
        gap = measure("norm_free_gap", optimizer, lost)
        assert gap.value == pytest.approx(np.log(84) - 1.9, abs=0.01)


def test_a_best_factor_at_an_end_of_the_grid_decides_nothing(tables: Tables) -> None:
    for name, subject in [("norm_free", "adamh"), ("matched", "adamw")]:
        ends = changed(tables, name, "validation_loss", 0.5, optimizer=subject, lr_factor=1 / 64)
        found = measure("norm_free_gap", "adamh", ends)
        assert np.isnan(found.low)
        assert f"{subject} is best at f = 0.015625" in found.note
    inside = changed(tables, "norm_free", "validation_loss", 0.5, optimizer="adamh", lr_factor=1.0)
    assert np.isfinite(measure("norm_free_gap", "adamh", inside).low)  # the stress test is worse


def test_a_far_start_decides_nothing(tables: Tables) -> None:
    """Where a run has not forgotten its start, neither a norm nor a balance is that of the equilibrium."""
    start = changed(tables, "norm_free", "late_norm_ratio", 1.2, optimizer="adamw", lr_factor=0.25, initial_norm=1.0)
    found = measure("norm_exponent", "adamw", start)
    assert np.isnan(found.low)
    assert "the start decides" in found.note
    settled = analysis.settled(tables, "norm_free")
    assert set(analysis.select(settled, lr_factor=0.25)["initial_norm"]) == {0.5}
    assert set(analysis.settled(tables, "starts")["initial_norm"]) == {1.0, 4.0}
    metrics, runs = tables["balance"]
    with pytest.raises(Undecidable, match="settled"):
        measure("balance", "every", Tables({"balance": Experiment(metrics, runs.assign(initial_norm=4.0))}))


def test_the_balance_has_every_term_and_shows_the_worst_kind(tables: Tables) -> None:
    worse = changed(tables, "balance", "late_weighted_square", 0.95, "down", rms_norm="every", **HALF)
    found = measure("balance", "every", worse)
    assert found.value == pytest.approx(0.95, abs=0.01)
    assert found.note == "farthest from 1: down"
    assert measure("balance", "every_at_e", worse).value == pytest.approx(1, abs=0.01)
    memory = (3 - 18 * 0.05) / 3
    assert measure("balance_without_memory", "every", tables).value == pytest.approx(memory, abs=0.01)
    for subject in ("none", "none_f_1"):
        assert measure("balance", subject, tables).value == pytest.approx(1, abs=0.01)
        assert measure("balance_without_radius", subject, tables).value < 0.9
    assert measure("balance", "pre_others", tables).value == pytest.approx(1, abs=0.01)
    without = measure("balance_without_radius", "pre_others", tables)
    assert without.value == pytest.approx(1 - 0.4 / (3 - 0.9), abs=0.01)
    assert measure("late_norm", "none_f_1", tables).value == pytest.approx(1, abs=0.01)


def test_embedding_and_head_are_left_out_of_angles(tables: Tables) -> None:
    other = changed(tables, "starts", "late_angle", 7.0, "embedding|head")
    assert measure("late_angle", "every", other) == measure("late_angle", "every", tables)


def test_a_difference_of_losses_decides_only_where_the_loss_sees_the_angle(tables: Tables) -> None:
    assert np.isfinite(measure("loss_difference", "theta_0", tables).low)
    flat = tables["matched"].runs.assign(late_validation_loss=2.0)
    blind = measure("loss_difference", "theta_0", Tables({"matched": Experiment(tables["matched"].metrics, flat)}))
    assert np.isnan(blind.low)
    assert "angle" in blind.note
    assert statistics.sees_the_angle({4.0: pd.Series([0.2, 0.1])})
    assert not statistics.sees_the_angle({4.0: pd.Series([0.3, -0.01])})  # both signs
    assert not statistics.sees_the_angle({4.0: pd.Series([0.03, 0.04])})  # small


def test_competition_is_never_decided_by_characters(tables: Tables) -> None:
    found = decide("X6", tables)
    assert found["verdict"] == verdicts.SHOWN
    assert abs(found["explored"][0]["value"]) < 0.05
    own = tables["matched"].runs.assign(corpus="tokens")
    tokens = Tables({"matched": Experiment(tables["matched"].metrics, own)})
    assert np.isfinite(measure("competitive_gap", "macro-F", tokens).high)


def test_nothing_is_decided_by_one_seed_or_by_none(tables: Tables) -> None:
    for seeds in ((200,), ()):
        few = {name: Experiment(metrics, runs[runs["seed"].isin(seeds)]) for name, (metrics, runs) in tables.items()}
        for name in CLAIMS:
            for part in decide(name, Tables(few))["parts"]:
                if part["statistic"] in STATISTICS:
                    assert part["verdict"] in (UNDECIDED, NEEDS_STUDY), part
                    assert part["why"]


def test_a_broken_bound_is_a_mistake_not_a_verdict(tables: Tables) -> None:
    with pytest.raises(AssertionError, match=r"adamh.*block|adamh.*input"):
        changed(tables, "norm_free", "bound_used", 2.1, optimizer="adamh")


# The statistics at the edge of a tolerance and in its middle


def grid_runs(draws: np.random.Generator, means: list[float], deviation: float, **settings: Any) -> pd.DataFrame:
    """Runs of three seeds on the grid of f whose losses scatter about these means."""
    cells = [
        (seed, f, mean + draws.normal(0, deviation)) for seed in SEEDS for f, mean in zip(GRID, means, strict=True)
    ]
    runs = pd.DataFrame(cells, columns=["seed", "lr_factor", "late_validation_loss"])
    runs["run_id"] = [f"{settings.get('optimizer')}-{n}" for n in range(len(runs))]
    return runs.assign(**{"lost": np.nan, "vocabulary": 84, "decay_per_step": 0.01, "initial_norm": 1.0, **settings})


def draw_exponent(draws: np.random.Generator, truth: float) -> Estimate:
    values = np.array(GRID) ** truth * np.exp(draws.normal(0, 0.1, (3, 4)))
    return statistics.exponent(pd.DataFrame(values, index=SEEDS, columns=GRID))


def draw_gap(draws: np.random.Generator, truth: float) -> Estimate:
    """Two rates are equally good, so the choice of the better one is at its worst."""
    own = grid_runs(draws, [2.5, 2 + truth, 2 + truth, 2.5], 0.006, optimizer="adamh")
    return statistics.gap(own, {"adamw": grid_runs(draws, [2.5, 2.0, 2.0, 2.5], 0.006, optimizer="adamw")})


def draw_sensitivity(draws: np.random.Generator, truth: float) -> Estimate:
    """Both arms have two equally good rates."""
    arms = {"adamw": [2.4, 2.0, 2.0, 2.4], "adamh": [2.4 + 4 * truth, 2.0, 2.0, 2.4]}
    runs = [grid_runs(draws, means, 0.006, optimizer=name) for name, means in arms.items()]
    tables = Tables({"norm_free": Experiment(pd.DataFrame(), pd.concat(runs, ignore_index=True))})
    return measure("sensitivity_difference", "adamh", tables)


def draw_balance(draws: np.random.Generator, truth: float) -> Estimate:
    """One kind of matrix of six is where the truth is, the others lie in the middle."""
    values = np.exp(draws.normal(0, 0.016, (6, 3))) * [[truth], *[[1.0]] * 5]
    return statistics.worst_kind(pd.DataFrame({"kind": np.repeat(analysis.MATRICES, 3), "x": values.ravel()}), "x")


def test_wrong_verdicts_are_as_rare_as_the_intervals_allow() -> None:
    require_calibrated(draw_exponent, (-0.2, 0.2), -0.2, 0.0)
    require_calibrated(draw_gap, (-np.inf, 0.1), 0.1, 0.02)
    require_calibrated(draw_sensitivity, (-np.inf, 0.0), 0.0, -0.1)
    require_calibrated(draw_balance, (0.9, 1.1), 1.1, 1.0)


def test_models_that_count_have_the_losses_that_the_figure_draws(corpus: Any) -> None:
    symbols = corpus.tensors["text"].numpy().astype(np.int64)
    block = np.arange(len(symbols)) // 2000
    is_validation = block % 10 == 9
    run = np.where(is_validation, block, block // 10)  # a stretch of training, or a block of validation

    def count(seen: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """How often each wanted number was seen."""
        values, counts = np.unique(seen, return_counts=True)
        places = np.searchsorted(values, wanted).clip(max=len(values) - 1)
        return np.where(values[places] == wanted, counts[places], 0)

    for order, expected in enumerate(analysis.CONTEXT_MODELS):
        places = np.arange(order, len(symbols))
        places = places[run[places] == run[places - order]]
        places = places[is_validation[places] == is_validation[places - order]]
        context = np.zeros(len(places), dtype=np.int64)
        for k in range(order):
            context = context * 84 + symbols[places - order + k]
        gram = context * 84 + symbols[places]
        held_out = is_validation[places]
        together = count(gram[~held_out], gram[held_out]) + 0.1
        before = count(context[~held_out], context[held_out]) + 84 * 0.1
        assert -np.log(together / before).mean() == pytest.approx(expected, abs=2e-3)


def test_figures_are_drawn_with_every_panel_filled(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("effective_lr.studies.manifold.toys.HORIZONS", (20, 40, 80))
    monkeypatch.setattr("effective_lr.studies.manifold.toys.SEEDS", (1,))
    for name in load_contents(ROOT / "paper/manifold/contents.yaml").figures:
        figure = getattr(figures, name)(tables)
        assert all(axis.lines or axis.collections for axis in figure.axes), name
        figure.canvas.draw()
        plt.close(figure)


def test_tables_have_rows_and_the_text_its_numbers(tables: Tables) -> None:
    about = {"finished": "2026-11-30", "device": "cpu", "torch": "2"}
    of = Tables({name: Experiment(metrics, runs.assign(**about)) for name, (metrics, runs) in tables.items()})
    claims = {name: decide(name, tables) for name in CLAIMS}
    results = Results(load("manifold"), of, claims, checks(), {"claims": {"X1": claims["X1"]}})
    text = (ROOT / "paper/manifold/text.tex").read_text()
    assert set(re.findall(r"\\num\{([^}]*)\}", text)) <= set(macros_of(results, "study"))
    for table in (shown.bijection, shown.late_losses, shown.second_registration):
        assert table(results).rows
