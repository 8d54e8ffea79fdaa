"""Verdicts follow the data: each claim on the published runs with made-up values, where it holds, fails, or is open."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from effective_lr.evidence import verdicts
from effective_lr.evidence.estimates import Estimate, Undecidable
from effective_lr.evidence.tidy import Experiment, Tables
from effective_lr.evidence.verdicts import Evidence
from effective_lr.prepare.dataset import Prepared
from effective_lr.studies.manifold import STUDY, analysis, statistics
from effective_lr.studies.manifold.bijection import matched_angle
from made_up import Made, Published, Value, changed, with_runs
from shared import require_calibrated

STATISTICS = verdicts.statistics_of(STUDY)
E = 1 / 120  # the decay per step of the study


def theta(rows: Any) -> Any:
    """The predicted angle."""
    return matched_angle(rows.decay_per_step, rows.beta1) * rows.lr_factor**0.5


def worst(rows: Any, x: float, usual: float = 1.0) -> Any:
    """What is asked for in two kinds of matrices; nonsense for embedding and head, which do not count."""
    kinds = [rows.layer.str.fullmatch(kind) for kind in (r".+\.(?:up|key)", r".+\..+")]
    return np.select(kinds, [x, usual], 7.0)


def distance(rows: Any) -> Any:
    """Of the angle from half of θ₀, in factors of two."""
    return np.abs(np.log(rows.lr_factor * rows.decay_per_step / E) / np.log(4) + 1)


def lr_and_decay(rows: Any) -> Any:
    """AdamW's, of a matrix whose equilibrium is at its starting norm."""
    rms = 1 / np.sqrt(rows.width * np.where(rows.layer.str.endswith("down"), 4, 1))
    lr = rms * np.sqrt(2 * rows.decay_per_step)
    return lr * rows.lr_factor, rows.decay_per_step / lr


def weighted_square(rows: Any, x: float, memory: float = -0.05, radial: float = 0.2) -> Any:
    """⟨w, √ŝ w⟩ whose balance, with these terms, is x."""
    lr, decay = lr_and_decay(rows)
    return lr * (worst(rows, x) * (3 + 2 * 9 * memory) - 2 * radial) / (2 * decay)


TERMS: dict[str, Value] = {
    "late_noise": lambda rows, x: 3.0,
    "late_memory": lambda rows, x: -0.05,
    "late_radial": lambda rows, x: 0.2 * lr_and_decay(rows)[0],
}
MADE: Made = {
    "angle_error": {
        what: lambda rows, x: np.arctan(theta(rows)) * worst(rows, 1 + x) for what in ("angle", "late_angle")
    },
    "late_angle": {"late_angle": lambda rows, x: theta(rows) * worst(rows, x, x)},
    "early_angle": {"angle": lambda rows, x: theta(rows) * worst(rows, x, x)},
    "relaxation_rate": {
        "norm_ratio": lambda rows, x: (1 + 15 * np.exp(-2 * E * x * rows.step)) ** 0.5,
        "late_norm_ratio": lambda rows, x: 1.0,
    },
    "angle_trend": {"angle": lambda rows, x: rows.step**x},
    "loss_difference": {
        "late_validation_loss": lambda rows, x: 2 + 0.2 * distance(rows) + x * (rows.optimizer == "adamw")
    },
    "norm_exponent": {"late_norm_ratio": lambda rows, x: rows.lr_factor**x},
    "residual_exponent": {what: lambda rows, x: rows.lr_factor**x for what in ("late_residual_rms", "residual_rms")},
    "residual_growth": {"residual_rms": lambda rows, x: np.where(rows.step == 1, 1.0, x)},
    "late_norm": {"late_norm_ratio": lambda rows, x: x},
    "norm_free_gap": {"late_validation_loss": lambda rows, x: 2 + 0.1 * distance(rows) + x * (rows.rms_norm == "none")},
    "sensitivity_difference": {  # of a loss that rises as much with each factor of four in f
        "late_validation_loss": lambda rows, x: 2 + distance(rows) * (0.3 + x * (rows.optimizer != "adamw"))
    },
    "balance": {**TERMS, "late_weighted_square": weighted_square},
    "balance_without_memory": {**TERMS, "late_weighted_square": lambda rows, x: weighted_square(rows, x, memory=0)},
    "balance_without_radius": {**TERMS, "late_weighted_square": lambda rows, x: weighted_square(rows, x, radial=0)},
}


@pytest.fixture(scope="module")
def published() -> Published:
    return Published(STUDY.name, {quantity for made in MADE.values() for quantity in made})


def test_a_statistic_is_what_its_data_say_and_the_verdict_follows(published: Published) -> None:
    """One matrix, of one kind, that departs is enough."""
    assert STATISTICS.keys() - MADE.keys() == {"finishing", "competitive_gap"}  # which are tested below
    published.require_known_answers(MADE, {})


def test_where_nothing_can_be_said_a_claim_is_undecided(published: Published) -> None:
    published.require_undecided_where_nothing_can_be_said()


def of_losses(published: Published, loss: Callable[[Any], Any]) -> Evidence:
    """The runs with late losses that are so much above 2 nats."""
    return changed(published.whole, "late_validation_loss", lambda rows: 2 + loss(rows))


def test_growth_is_that_of_the_last_probe_or_the_largest_before_a_loss(published: Published) -> None:
    whole = changed(published.whole, "residual_rms", lambda rows: np.where(rows.step < 900, rows.step, 5))
    metrics = whole.tables["norm_free"].metrics
    steps = metrics["step"][metrics["quantity"] == "residual_rms"]
    whole, lost = (changed(whole, "lost", value) for value in (lambda rows: np.nan, lambda rows: 600))
    assert STATISTICS["residual_growth"](whole, "adamh").value == pytest.approx(5)
    assert STATISTICS["residual_growth"](lost, "adamh").value == pytest.approx(steps[steps <= 600].max())


def test_a_run_is_lost_at_two_successive_late_evaluations_above_a_uniform_guess() -> None:
    run = pd.DataFrame({"run_id": ["a"], "steps": 1200, "late_fraction": 0.5, "vocabulary": 84, "diverged": np.nan})
    steps = pd.Series([1, 100, 300, 600, 675, 750, 825, 900])
    for bad, expected in [([675], np.nan), ([675, 825], np.nan), ([675, 750], 675), ([825, 900], 825)]:
        losses = np.where(steps.isin([1, 100, 300, *bad]), np.log(84) + 0.1, 2.0)  # every run begins so
        metrics = pd.DataFrame({"run_id": "a", "step": steps, "quantity": "validation_loss", "value": losses})
        assert analysis.lost_steps(metrics, run).tolist() == pytest.approx([expected], nan_ok=True)
        assert analysis.lost_steps(metrics, run.assign(diverged=7)).tolist() == [7]


@pytest.mark.parametrize("optimizer", ["adamh", "macro-F"])
def test_a_lost_run_counts_as_a_uniform_guess_but_not_in_the_stress_test(published: Published, optimizer: str) -> None:
    whole = of_losses(published, lambda rows: 0.1 * distance(rows))
    chosen = published.whole.tables["norm_free"].runs.query("optimizer == @optimizer")
    gap, finishing = STATISTICS["norm_free_gap"], STATISTICS["finishing"]
    lost = changed(whole, "lost", lambda rows: np.where(rows.rms_norm == "none", 7.0, np.nan))
    stressed = changed(whole, "lost", lambda rows: np.where(rows.lr_factor == 4, 7.0, np.nan))
    assert gap(lost, optimizer).value == pytest.approx(np.log(84) - 2) and finishing(lost, optimizer).value == 0
    assert gap(stressed, optimizer).value == pytest.approx(0)
    assert finishing(stressed, optimizer).value == (chosen["lr_factor"] < 4).sum()


@pytest.mark.parametrize("place, best", [("none", 1 / 64), ("pre", 1 / 64), ("none", 1.0)])
def test_a_best_factor_at_an_end_of_the_grid_decides_nothing(published: Published, place: str, best: float) -> None:
    """The stress test is worse, so f = 1 is no end."""
    ends = of_losses(
        published, lambda rows: 0.1 * distance(rows) - ((rows.lr_factor == best) & (rows.rms_norm == place))
    )
    found = STATISTICS["norm_free_gap"](ends, "adamh")
    assert np.isfinite(found.low) if best == 1 else np.isnan(found.low) and "is best at f = 0.015625" in found.note


def test_a_far_start_decides_nothing(published: Published) -> None:
    """Where a run has not forgotten its start, neither a norm nor a balance is that of the equilibrium."""
    norms = changed(published.whole, "late_norm_ratio", lambda rows: rows.lr_factor**0.5 * rows.initial_norm**0.2)
    found = STATISTICS["norm_exponent"](norms, "adamw")
    assert np.isnan(found.low) and "the start decides" in found.note
    settled = analysis.settled(published.whole.tables, "norm_free")
    assert set(analysis.select(settled, lr_factor=0.25)["initial_norm"]) == {0.5}
    assert set(analysis.settled(published.whole.tables, "starts")["initial_norm"]) == {1.0, 4.0}
    far = with_runs(published.whole, "balance", lambda runs: runs.assign(initial_norm=40.0))
    with pytest.raises(Undecidable, match="settled"):
        STATISTICS["balance"](far, "every")


def test_a_difference_of_losses_decides_only_where_the_loss_sees_the_angle(published: Published) -> None:
    seen, blind = (
        STATISTICS["loss_difference"](of_losses(published, loss), "theta_0")
        for loss in (lambda rows: 0.2 * distance(rows), lambda rows: 0.02 * distance(rows))
    )
    assert np.isfinite(seen.low) and np.isnan(blind.low) and "angle" in blind.note
    assert not statistics.sees_the_angle({4.0: pd.Series([0.3, -0.01])})  # both signs


def test_competition_is_never_decided_by_characters(published: Published) -> None:
    whole = of_losses(published, lambda rows: 0.1 * distance(rows) + 0.3 * (rows.optimizer == "adamh"))
    found = STATISTICS["competitive_gap"](whole, "adamh")
    assert found.value == pytest.approx(0.3) and np.isnan(found.high)
    tokens = with_runs(whole, "matched", lambda runs: runs.assign(corpus="tokens"))
    assert np.isfinite(STATISTICS["competitive_gap"](tokens, "adamh").high)


def test_a_broken_bound_is_a_mistake_not_a_verdict() -> None:
    row = pd.DataFrame({"run_id": ["adamh"], "step": 1, "layer": "block1", "quantity": "bound_used", "value": 1.1})
    with pytest.raises(AssertionError, match=r"adamh.*block1"):
        analysis.derive(row, pd.DataFrame())


def grid_runs(draws: np.random.Generator, means: list[float], optimizer: str) -> pd.DataFrame:
    """Runs of three seeds on the grid of f whose losses scatter about these means."""
    cells = [(seed, 4.0 ** (n - 3), mean + draws.normal(0, 0.006)) for seed in range(3) for n, mean in enumerate(means)]
    runs = pd.DataFrame(cells, columns=["seed", "lr_factor", "late_validation_loss"])
    about = {"lost": np.nan, "vocabulary": 84, "decay_per_step": E, "initial_norm": 1.0, "optimizer": optimizer}
    return runs.assign(run_id=[f"{optimizer}-{n}" for n in range(len(runs))], **about)


def draw_gap(draws: np.random.Generator, truth: float) -> Estimate:
    """Two rates are equally good, so the choice of the better one is at its worst."""
    own = grid_runs(draws, [2.5, 2 + truth, 2 + truth, 2.5], "adamh")
    return statistics.gap(own, {"adamw": grid_runs(draws, [2.5, 2.0, 2.0, 2.5], "adamw")})


def draw_sensitivity(draws: np.random.Generator, truth: float) -> Estimate:
    """Both arms have two equally good rates."""
    arms = {"adamw": [2.4, 2.0, 2.0, 2.4], "adamh": [2.4 + 4 * truth, 2.0, 2.0, 2.4]}
    runs = pd.concat([grid_runs(draws, means, name) for name, means in arms.items()], ignore_index=True)
    tables = Tables({"norm_free": Experiment(pd.DataFrame(), runs)})
    return STATISTICS["sensitivity_difference"](Evidence(tables, pd.DataFrame()), "adamh")


def draw_balance(draws: np.random.Generator, truth: float) -> Estimate:
    """One kind of matrix of six is where the truth is, the others lie in the middle."""
    values = np.exp(draws.normal(0, 0.016, (6, 3))) * [[truth], *[[1.0]] * 5]
    return statistics.worst_kind(pd.DataFrame({"kind": np.repeat(analysis.MATRICES, 3), "x": values.ravel()}), "x")


def test_wrong_verdicts_are_as_rare_as_the_intervals_allow() -> None:
    require_calibrated(draw_gap, (-np.inf, 0.1), 0.1, 0.02)
    require_calibrated(draw_sensitivity, (-np.inf, 0.0), 0.0, -0.1)
    require_calibrated(draw_balance, (0.9, 1.1), 1.1, 1.0)


def test_models_that_count_have_the_losses_that_the_figure_draws(corpus: Prepared) -> None:
    symbols = corpus.tensors["text"].numpy().astype(np.int64)
    block = np.arange(len(symbols)) // 2000
    is_validation = block % 10 == 9
    part = np.where(is_validation, -block, block // 10)  # a block of validation, or a stretch of training
    for order, expected in enumerate(analysis.CONTEXT_MODELS):
        places = np.arange(order, len(symbols))
        places = places[part[places] == part[places - order]]
        context = sum((symbols[places - k] * 84 ** (k - 1) for k in range(1, order + 1)), np.zeros_like(places))
        table = pd.DataFrame({"context": context, "gram": context * 84 + symbols[places]})
        train, held_out = table[~is_validation[places]], table[is_validation[places]]
        together, before = (held_out[key].map(train[key].value_counts()).fillna(0) for key in ("gram", "context"))
        losses = -np.log((together + 0.1) / (before + 84 * 0.1))
        assert losses.mean() == pytest.approx(expected, abs=2e-3)
