"""The settings of a run: what is possible, what it is called, where it comes from, and its arithmetic."""

import math
import re
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from effective_lr.engine.grid import scales
from effective_lr.studies.normalization.networks import build_network, normalized_layers
from effective_lr.studies.normalization.settings import Run
from shared import ROOT, STUDY, make_run

SCALES = ROOT / "config" / STUDY.name


def test_the_name_of_a_run_is_the_one_it_always_had() -> None:
    # Published tables and explorers know runs by this name.
    run = make_run(normalization="layer", optimizer="adam", projected=True, lr=0.003, l2=1e-5, seed=100)
    assert run.run_id == "layer-adam-projected-lr_0.003-l2_1e-05-seed_100-cee389"


def test_names_of_large_numbers_have_no_plus() -> None:
    run = make_run(lr=1e7, l2=2e9)
    assert "lr_1e07-l2_2e09-" in run.run_id and "+" not in run.run_id


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"momentum": 1}, ["momentum", "less than 1"]),
        ({"norm_eps": math.inf}, ["norm_eps", "finite"]),
        ({"projected": True, "normalization": "none"}, ["projected = true", "normalization = none"]),
        (
            {"rescaled_at_drop": True, "lr_drop": 4, "optimizer": "adam"},
            ["rescaled_at_drop = true", "optimizer = sgd", "projected = false"],
        ),
        ({"rescaled_at_drop": True}, ["rescaled_at_drop = true", "lr_drop"]),
        ({"affine_l2": "first"}, ["affine_l2", "'none', 'hidden', 'last' or 'all'"]),
        ({"resolution": 10}, ["resolution = 10", "28", "14"]),
        ({"dataset": "cifar10", "resolution": 28}, ["resolution = 28", "32", "16"]),
        ({"train_size": 55_001}, ["train_size = 55001", "55000"]),
        ({"test_size": 10_001}, ["test_size = 10001", "10000"]),
        ({"validation_size": 5001}, ["validation_size", "5000"]),
        ({"batch_size": 97}, ["batch_size = 97", "96"]),
        ({"statistics_size": 97}, ["statistics_size = 97", "96"]),
        ({"evaluations": 31}, ["evaluations = 31", "30 images", "evaluated = all"]),
        ({"label_noise": 1.1}, ["label_noise", "less than or equal to 1"]),
        ({"leak": 1}, ["leak", "less than 1"]),
        ({"affine_lr": "fixed"}, ["affine_lr", "'shared' or 'frozen'"]),
        *(
            ({"replay": "closed", **changes}, ["replay = closed", "optimizer = sgd", "l2 above 0"])
            for changes in ({"optimizer": "adam"}, {"l2": 0}, {"normalization": "none"}, {"projected": True})
        ),
        ({"corrected_squares": True, "optimizer": "adam"}, ["corrected_squares = true", "optimizer = adam"]),
        ({"starts_at_equilibrium": True, "l2": 0}, ["starts_at_equilibrium = true", "l2 above 0"]),
        ({"batch_size": 1}, ["batch_size = 1", "normalization = batch"]),
        *(({key: value}, [f"{key} = {str(value).lower()}"]) for key in ("lr", "seed") for value in (True, False)),
    ],
)
def test_what_is_not_possible_is_refused(changes: dict[str, Any], told: list[str]) -> None:
    with pytest.raises(ValidationError) as refusal:
        make_run(**changes)
    assert all(part in str(refusal.value) for part in told), refusal.value


def test_what_is_just_possible_is_accepted() -> None:
    sizes = {"train_size": 55_000, "batch_size": 55_000, "statistics_size": 55_000}
    assert make_run(**sizes, validation_size=5_000, test_size=10_000).train_size == 55_000
    make_run(batch_size=1, normalization="layer")
    make_run(norm_eps=0, l2=0, momentum=0)


def source_of(key: str, value: Any) -> str:
    extra = Run.model_fields[key].json_schema_extra
    assert isinstance(extra, dict)
    source: Any = extra["source"]
    return str(source if isinstance(source, str) else source[value])


@pytest.mark.parametrize("scale", scales(SCALES))
def test_the_tags_in_a_scale_are_those_of_the_model(scale: str) -> None:
    text = (SCALES / f"{scale}.yaml").read_text()
    stated = yaml.safe_load(text)["defaults"]
    found = re.findall(r"^  (\w+): \S+  # \[(\w+)\]", text.partition("\nexperiments:")[0], flags=re.MULTILINE)
    assert dict(found) == {key: source_of(key, value) for key, value in stated.items()}


@pytest.mark.parametrize(
    "dataset", [{}, {"dataset": "cifar10", "resolution": 32, "width": 8}, {"evaluated": "all"}, {"replay": "open"}]
)
def test_operations_are_those_of_the_layers(dataset: dict[str, Any]) -> None:
    run = make_run(**dataset)
    forward, sides = [], (run.resolution, run.resolution // 2, run.resolution // 4, 1)
    for (_, layer), side in zip(normalized_layers(build_network(run)), sides, strict=True):
        forward.append(2 * side**2 * layer.weight.numel())
    image = 3 * sum(forward) - forward[0]
    times = 2 if "evaluated" in dataset else 1  # all images at each of the two evaluations, or a half at each
    evaluated = times * (run.validation_size + run.test_size) + run.evaluations * run.statistics_size
    trained = run.steps * run.batch_size * (2 if "replay" in dataset else 1)  # a decayed run goes beside
    assert STUDY.operations(run) == pytest.approx(image * (trained + evaluated / 3))
    other = make_run(**dataset, normalization="weight")  # has no statistics to recompute
    fewer = run.evaluations * run.statistics_size / 3
    assert STUDY.operations(run) - STUDY.operations(other) == pytest.approx(image * fewer)
