"""The exact symmetries of training with a normalization: other settings, the same function. In float64."""

import pandas as pd
import pytest

from effective_lr.studies.normalization import checks, theory
from effective_lr.studies.normalization.checks import RATES, relative, small_run, symmetry, synthetic_splits
from effective_lr.studies.normalization.data import Splits
from effective_lr.studies.normalization.tables import STATEMENTS


@pytest.fixture(scope="module")
def splits() -> Splits:
    return synthetic_splits(seed=7)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    names = ("check", "subject", "holds", "value")
    return pd.DataFrame(list(checks.rows_of(7)), columns=names)


def test_every_statement_holds_and_every_control_breaks_it(table: pd.DataFrame) -> None:
    residuals = table[table["check"] != "norm_exponent"]
    assert set(residuals["check"]) == set(STATEMENTS)
    for (_, subject), group in residuals.groupby(["check", "holds"]):
        assert (group["value"] < 1e-11).all() if subject else (group["value"] > 0.05).all(), group
    assert residuals.groupby("check")["holds"].nunique().eq(2).all()


def test_exponents_are_those_of_the_theory(table: pd.DataFrame) -> None:
    found = table[table["check"] == "norm_exponent"].set_index("subject")["value"]
    expected = {name: theory.NORM_EXPONENT[name] for name in RATES if name != "adamw"}
    assert found.to_dict() == pytest.approx({**expected, "projected": 0, "gauss_newton": 0}, abs=1e-3)


@pytest.mark.parametrize("setting", ["lr", "l2", "initial_norm"])
@pytest.mark.parametrize("optimizer", RATES)
def test_every_part_of_the_rescaling_is_needed(optimizer: str, setting: str, splits: Splits) -> None:
    assert symmetry(small_run(optimizer, steps=20), splits, (3.0,), keep=setting) > 1e-3


@pytest.mark.parametrize("normalization", ["batch", "layer"])
def test_unscaled_norm_eps_ends_the_symmetry_at_small_norms(normalization: str, splits: Splits) -> None:
    run = small_run(normalization=normalization, steps=20)
    assert symmetry(run, splits, (1e-3,)) < 1e-9
    assert symmetry(run, splits, (1e-3,), keep="norm_eps") > 1e-2


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "adamw"])
def test_unscaled_optimizer_eps_ends_the_symmetry(optimizer: str, splits: Splits) -> None:
    """At large a the gradient is small and ε is not: the effective ε of a weight is ε·a."""
    run = small_run(optimizer, normalization="weight", optimizer_eps=1e-5, steps=20)
    assert symmetry(run, splits, (1e3,)) < 1e-9
    assert symmetry(run, splits, (1e3,), keep="optimizer_eps") > 1e-2


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_shared_learning_rate_of_gamma_and_beta_ends_the_symmetry(optimizer: str, splits: Splits) -> None:
    assert symmetry(small_run(optimizer, affine_lr="shared", steps=20), splits, (3.0,)) > 1e-3


def test_small_runs_train(splits: Splits) -> None:
    """A symmetry of runs that stand still would prove nothing."""
    for optimizer in RATES:
        losses = checks.Trained(small_run(optimizer), splits).losses
        assert relative(losses[:1].expand_as(losses), losses) > 0.05
