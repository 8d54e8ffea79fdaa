"""The exact symmetries of training with a normalization: other settings, the same function. In float64."""

from typing import Any

import pandas as pd
import pytest

from effective_lr.studies.normalization import checks, theory
from effective_lr.studies.normalization.checks import RATES, relative, small_run, symmetry, synthetic_splits
from effective_lr.studies.normalization.data import Splits
from effective_lr.studies.normalization.tables import STATEMENTS


@pytest.fixture(scope="module")
def splits() -> Splits:
    return synthetic_splits(seed=7)


def test_every_statement_holds_its_controls_break_it_and_exponents_are_those_of_the_theory() -> None:
    table = pd.DataFrame(list(checks.rows_of(7)), columns=["check", "subject", "holds", "value"])
    is_exponent = table["check"] == "norm_exponent"
    assert set(table["check"][~is_exponent]) == set(STATEMENTS)
    for (check, holds), group in table[~is_exponent].groupby(["check", "holds"]):
        assert (group["value"] < 1e-11).all() if holds else (group["value"] > 0.05).all(), (check, group)
    assert table[~is_exponent].groupby("check")["holds"].nunique().eq(2).all()
    expected = {name: theory.NORM_EXPONENT[name] for name in RATES if name != "adamw"}
    found = table[is_exponent].set_index("subject")["value"].to_dict()
    assert found == pytest.approx({**expected, "projected": 0, "gauss_newton": 0}, abs=1e-3)


@pytest.mark.parametrize("optimizer", RATES)
def test_every_part_of_the_rescaling_is_needed_in_runs_that_train(optimizer: str, splits: Splits) -> None:
    for setting in ("lr", "l2", "initial_norm"):
        assert symmetry(small_run(optimizer, steps=20), splits, (3.0,), keep=setting) > 1e-3
    losses = checks.Trained(small_run(optimizer), splits).losses
    assert relative(losses[:1].expand_as(losses), losses) > 0.05  # of runs that stand still it would prove nothing


# Small norms for the ε of a normalization; large ones, at which the gradient is small, for that of an optimizer.
EPSILONS: list[tuple[str, float, dict[str, Any]]] = [
    *(("norm_eps", 1e-3, {"normalization": name}) for name in ("batch", "layer")),
    *(
        ("optimizer_eps", 1e3, {"optimizer": name, "normalization": "weight", "optimizer_eps": 1e-5})
        for name in ("adam", "rmsprop", "adamw")
    ),
]


def test_an_unscaled_epsilon_or_a_shared_learning_rate_ends_the_symmetry(splits: Splits) -> None:
    for setting, a, changes in EPSILONS:
        run = small_run(**changes, steps=20)
        assert symmetry(run, splits, (a,)) < 1e-9, changes
        assert symmetry(run, splits, (a,), keep=setting) > 1e-2, changes
    for optimizer in ("sgd", "adam"):
        assert symmetry(small_run(optimizer, affine_lr="shared", steps=20), splits, (3.0,)) > 1e-3
