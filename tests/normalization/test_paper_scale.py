"""The scale `paper` before it is trained: its grids reach every claim with five seeds, and its jobs are of a size.

Made-up tables of its own runs go through the statistics. What they need, cells in a window, values of ηλ, partners and
seeds, they must find; what they find there means nothing.
"""

from typing import Any

import numpy as np
import pandas as pd

from effective_lr.engine import contents, grid, resources
from effective_lr.evidence import verdicts
from effective_lr.evidence.tidy import Experiment, Tables
from effective_lr.studies.normalization import theory
from effective_lr.studies.normalization.analysis import LATE
from effective_lr.studies.normalization.settings import TYPICAL_GRADIENT, Run
from shared import ROOT, STUDY

CHAPTER = contents.load_chapter(ROOT, STUDY.name, "paper")
LAYERS = {"conv1": 27, "conv2": 576, "conv3": 1152, "linear": 256}  # weights in a scale group
EXACT = ("invariance", "affine_invariance", "norm_exponent")  # which rest on checks, not on runs
LOSES = 0.15  # θ of a layer above which these tables have lost its units


def made_up(runs: list[Any]) -> Experiment:
    """Errors that a penalty changes, values that differ a little between runs, and lost units from a θ on."""
    table = pd.DataFrame([{**run.model_dump(), "run_id": run.run_id, "diverged": np.nan} for run in runs])
    noise = 1 + 1e-3 * np.sin(np.arange(len(table)) ** 2)
    table["test_error"] = (0.2 + 0.1 * np.exp(-1000 * table["l2"])) * noise
    table["validation_error"] = table["test_error"]
    table["late_train_loss"] = 0.4 * np.exp(100 * table["l2"].clip(upper=0.02)) * noise
    rows = []
    for layer, size in LAYERS.items():
        penalty = table["l2"].where(table["layer_l2"] == "equal", table["l2"] * max(LAYERS.values()) / size)
        theta = theory.angle_scale(table["lr"], penalty, TYPICAL_GRADIENT, size)
        is_lost = table["optimizer"].isin(["adam", "rmsprop"]) & (table["layer_l2"] == "equal") & (theta > LOSES)
        values = {**dict.fromkeys(LATE, noise), "layer_l2": penalty, "group_size": size}
        values |= {"late_without_gradient": is_lost.astype(float)}
        rows += [
            pd.DataFrame({"run_id": table["run_id"], "step": 1, "layer": layer, "quantity": what, "value": value})
            for what, value in values.items()
        ]
    errors = {"run_id": table["run_id"], "step": 1, "layer": "", "quantity": "test_error", "value": table["test_error"]}
    return Experiment(pd.concat([*rows, pd.DataFrame(errors)], ignore_index=True), table)


def test_its_grids_have_what_every_claim_needs() -> None:
    tables = {name: made_up(runs) for name, runs in CHAPTER.experiments.items()}
    evidence = verdicts.Evidence(Tables(tables), pd.DataFrame(columns=["check", "subject", "value"]))
    for name, claim in CHAPTER.claims.items():
        result = verdicts.decide(name, claim, evidence, verdicts.statistics_of(STUDY))
        for part in result["parts"]:
            if part["statistic"] not in EXACT:
                assert part["low"] is not None, part
                assert part["freedom"] is None or part["freedom"] >= 4, part  # five seeds
        assert all(part["value"] is not None for part in result["explored"]), result["explored"]


def test_it_has_the_data_of_the_original_and_new_seeds() -> None:
    runs: list[Run] = grid.unique(CHAPTER.experiments)  # type: ignore[assignment]
    assert {(run.dataset, run.resolution) for run in runs} == {("cifar10", 32)}
    assert {run.seed for run in runs} == {*range(300, 305)}


def test_no_job_takes_two_hours_of_a_gpu_and_few_gpus_train_it_in_a_night() -> None:
    """By the speed that a plan assumes where no GPU was measured."""
    seconds = [sum(map(STUDY.operations, runs)) / resources.GPU_SPEED for runs in CHAPTER.jobs.values()]
    night = 12 * 3600
    assert max(seconds) < 2 * 3600 and sum(seconds) < 3 * night
