"""The settings of a run: what is possible, what it is called, its arithmetic, and the splits of its data."""

import math
import re
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError

from effective_lr.engine.grid import scales
from effective_lr.errors import UserError
from effective_lr.studies.normalization.data import splits_for
from effective_lr.studies.normalization.networks import build_network, normalized_layers
from effective_lr.studies.normalization.settings import VALIDATION_SIZE, Run
from shared import ROOT, STUDY, make_run

SCALES = ROOT / "config" / STUDY.name


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"norm_eps": math.inf}, ["norm_eps", "finite"]),
        ({"projected": True, "normalization": "none"}, ["projected = true", "normalization = none"]),
        (
            {"rescaled_at_drop": True, "lr_drop": 4, "optimizer": "adam"},
            ["rescaled_at_drop = true", "optimizer = sgd", "projected = false"],
        ),
        ({"rescaled_at_drop": True}, ["rescaled_at_drop = true", "lr_drop"]),
        ({"resolution": 10}, ["resolution = 10", "28", "14"]),
        ({"train_size": 55_001}, ["train_size = 55001", "55000"]),
        ({"test_size": 10_001}, ["test_size = 10001", "10000"]),
        ({"validation_size": 5001}, ["validation_size", "5000"]),
        ({"batch_size": 97}, ["batch_size = 97", "96"]),
        ({"statistics_size": 97}, ["statistics_size = 97", "96"]),
        ({"evaluations": 31}, ["evaluations = 31", "30 images", "evaluated = all"]),
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


TENSORS = {
    name: torch.arange(float(size)).view(-1, 1, 1, 1).expand(size, 1, 2, 2) if "images" in name else torch.arange(size)
    for name, size in {"train_images": 60 + VALIDATION_SIZE, "train_labels": 60 + VALIDATION_SIZE,
                       "test_images": 20, "test_labels": 20}.items()
}  # fmt: skip
SIZES = {"batch_size": 4, "statistics_size": 4}


def test_splits_are_the_first_images_and_validation_the_last_of_the_training_files() -> None:
    splits = splits_for(TENSORS, make_run(train_size=7, validation_size=5, test_size=3, **SIZES))
    assert splits.train_labels.tolist() == list(range(7)) and splits.test_labels.tolist() == [0, 1, 2]
    assert splits.validation_labels.tolist() == [60, 61, 62, 63, 64]
    assert splits.validation_images[:, 0, 0, 0].tolist() == splits.validation_labels.tolist()
    moved = splits.to("cpu")
    assert moved.train_images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(moved.test_images, splits.test_images)


def test_a_split_with_fewer_images_is_refused() -> None:
    fits = {"train_size": 7, "validation_size": 5, "test_size": 3, **SIZES}
    for split, there in [("train", 60), ("test", 20)]:
        with pytest.raises(UserError, match=f"{split}_size = {there + 1}: .*{there}"):
            splits_for(TENSORS, make_run(**{**fits, f"{split}_size": there + 1}))


def test_label_noise_redraws_its_share_from_the_seed() -> None:
    tensors = {**TENSORS, "train_labels": torch.full_like(TENSORS["train_labels"], 3)}
    sizes = {"train_size": 60, "validation_size": 5, "test_size": 3, **SIZES}

    def changed(**settings: Any) -> list[int]:
        splits = splits_for(tensors, make_run(**sizes, **settings))
        assert (splits.validation_labels == 3).all()  # nor are those of the test images touched
        return [k for k, label in enumerate(splits.train_labels.tolist()) if label != 3]

    assert changed() == []
    wrong = changed(label_noise=0.5)
    assert 20 <= len(wrong) <= 30  # of 30 redrawn, a tenth by chance right
    assert wrong == changed(label_noise=0.5, l2=0, lr=3, steps=7)
    assert wrong != changed(label_noise=0.5, seed=4)
    assert (tensors["train_labels"] == 3).all()
