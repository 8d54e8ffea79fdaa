"""The scale `paper` before it is trained: its grids reach every claim with five seeds, and its jobs are of a size."""

import numpy as np
import pandas as pd

from effective_lr.engine import contents, grid, resources
from effective_lr.evidence import verdicts
from effective_lr.evidence.tidy import Experiment, Tables
from effective_lr.studies.normalization import theory
from effective_lr.studies.normalization.analysis import LATE
from effective_lr.studies.normalization.settings import TYPICAL_GRADIENT
from shared import ROOT, STUDY

CHAPTER = contents.load_chapter(ROOT, STUDY.name, "paper")
LAYERS = pd.DataFrame({"layer": ["conv1", "conv2", "conv3", "linear"], "group_size": [27, 576, 1152, 256]})
LOSES = 0.15  # θ of a layer above which these tables have lost its units


def made_up(experiment: str) -> Experiment:
    """Errors that a penalty changes, values that differ a little between runs, and lost units from a θ on."""
    records = [{**run.model_dump(), "run_id": run.run_id} for run in CHAPTER.experiments[experiment]]
    noise = 1 + 1e-3 * np.sin(np.arange(len(records)) ** 2)
    runs = pd.DataFrame(records).assign(diverged=np.nan, noise=noise)
    runs["test_error"] = runs["validation_error"] = (0.2 + 0.1 * np.exp(-1000 * runs["l2"])) * noise
    runs["late_train_loss"] = 0.4 * np.exp(100 * runs["l2"].clip(upper=0.02)) * noise
    rows = runs.merge(LAYERS, how="cross")
    is_equal, is_square = rows["layer_l2"] == "equal", rows["optimizer"].isin(["adam", "rmsprop"])
    penalty = rows["l2"].where(is_equal, rows["l2"] * LAYERS["group_size"].max() / rows["group_size"])
    theta = theory.angle_scale(rows["lr"], penalty, TYPICAL_GRADIENT, rows["group_size"])
    late = dict.fromkeys(LATE, rows["noise"]) | {"layer_l2": penalty, "group_size": rows["group_size"]}
    late["late_without_gradient"] = 1.0 * (is_square & is_equal & (theta > LOSES))
    metrics = rows.assign(**late).melt(["run_id", "layer"], [*LATE], "quantity")
    errors = runs[["run_id"]].assign(layer="", quantity="test_error", value=runs["test_error"])
    return Experiment(pd.concat([metrics, errors], ignore_index=True).assign(step=1), runs)


def test_its_grids_have_what_every_claim_needs() -> None:
    """Cells in a window, values of ηλ, partners and seeds: the statistics find them. What they find means nothing."""
    tables = Tables({name: made_up(name) for name in CHAPTER.experiments})
    evidence = verdicts.Evidence(tables, pd.DataFrame(columns=["check", "subject", "value"]))
    for name, claim in CHAPTER.claims.items():
        result = verdicts.decide(name, claim, evidence, verdicts.statistics_of(STUDY))
        for what, part in zip(claim.parts, result["parts"], strict=True):
            if what.statistic:  # and no exact check
                assert part["low"] is not None, part
                assert part["freedom"] is None or part["freedom"] >= 4, part  # five seeds
        assert all(part["value"] is not None for part in result["explored"]), result["explored"]


def test_it_has_the_data_of_the_original_new_seeds_and_jobs_that_few_gpus_train_in_a_night() -> None:
    """By the speed that a plan assumes where no GPU was measured."""
    settings = pd.DataFrame([run.model_dump() for run in grid.unique(CHAPTER.experiments)])
    assert set(settings["dataset"]) == {"cifar10"} and set(settings["resolution"]) == {32}
    assert set(settings["seed"]) == {*range(300, 305)}
    seconds = [sum(map(STUDY.operations, runs)) / resources.GPU_SPEED for runs in CHAPTER.jobs.values()]
    night = 12 * 3600
    assert max(seconds) < 2 * 3600 and sum(seconds) < 3 * night
