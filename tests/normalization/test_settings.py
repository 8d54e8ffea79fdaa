"""The settings of a run: what is possible, what it is called, its arithmetic, and the splits of its data."""

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

REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"projected": True, "normalization": "none"}, ["projected = true", "normalization = none"]),
    ({"rescaled_at_drop": True, "lr_drop": 4, "optimizer": "adam"}, ["rescaled_at_drop = true", "optimizer = sgd"]),
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
]


def test_what_is_not_possible_is_refused_and_what_is_just_possible_accepted() -> None:
    for changes, told in REFUSED:
        with pytest.raises(ValidationError) as refusal:
            make_run(**changes)
        assert all(part in str(refusal.value) for part in told), refusal.value
    sizes = {"train_size": 55_000, "batch_size": 55_000, "statistics_size": 55_000}
    assert make_run(**sizes, validation_size=5_000, test_size=10_000).train_size == 55_000
    make_run(batch_size=1, normalization="layer", norm_eps=0, l2=0, momentum=0)


def test_the_tags_in_a_scale_are_those_of_the_model() -> None:
    for scale in scales(ROOT / "config" / STUDY.name):
        text = (ROOT / "config" / STUDY.name / f"{scale}.yaml").read_text()
        expected = {}
        for key, value in yaml.safe_load(text)["defaults"].items():
            extra: Any = Run.model_fields[key].json_schema_extra
            source = extra["source"]
            expected[key] = source if isinstance(source, str) else source[value]
        found = re.findall(r"^  (\w+): \S+  # \[(\w+)\]", text.partition("\nexperiments:")[0], flags=re.MULTILINE)
        assert dict(found) == expected, scale


def test_operations_are_those_of_the_layers() -> None:
    cifar = {"dataset": "cifar10", "resolution": 32, "width": 8}
    changed: list[dict[str, Any]] = [{}, cifar, {"evaluated": "all"}, {"replay": "open"}, {"normalization": "weight"}]
    for changes in changed:
        run = make_run(**changes)
        forward, sides = [], (run.resolution, run.resolution // 2, run.resolution // 4, 1)
        for (_, layer), side in zip(normalized_layers(build_network(run)), sides, strict=True):
            forward.append(2 * side**2 * layer.weight.numel())
        image = 3 * sum(forward) - forward[0]
        times = 2 if "evaluated" in changes else 1  # all images at each of the two evaluations, or a half at each
        evaluated = times * (run.validation_size + run.test_size)
        if run.normalization == "batch":
            evaluated += run.evaluations * run.statistics_size
        trained = run.steps * run.batch_size * (2 if "replay" in changes else 1)  # a decayed run goes beside
        assert STUDY.operations(run) == pytest.approx(image * (trained + evaluated / 3)), changes


def numbered(split: str, size: int) -> dict[str, torch.Tensor]:
    """Images whose pixels, and labels, are their place in the file."""
    labels = torch.arange(size)
    return {f"{split}_images": labels.view(-1, 1, 1, 1) * torch.ones(1, 1, 2, 2), f"{split}_labels": labels}


TENSORS = numbered("train", 60 + VALIDATION_SIZE) | numbered("test", 20)
FITS = {"train_size": 7, "validation_size": 5, "test_size": 3, "batch_size": 4, "statistics_size": 4}


def test_splits_are_the_first_images_and_validation_the_last_of_the_training_files() -> None:
    splits = splits_for(TENSORS, make_run(**FITS))
    assert splits.train_labels.tolist() == list(range(7)) and splits.test_labels.tolist() == [0, 1, 2]
    assert splits.validation_labels.tolist() == [60, 61, 62, 63, 64]
    assert splits.validation_images[:, 0, 0, 0].tolist() == splits.validation_labels.tolist()
    assert torch.equal(splits.to("cpu").test_images, splits.test_images)
    for split, there in [("train", 60), ("test", 20)]:
        with pytest.raises(UserError, match=f"{split}_size = {there + 1}: .*{there}"):
            splits_for(TENSORS, make_run(**{**FITS, f"{split}_size": there + 1}))


def test_label_noise_redraws_its_share_from_the_seed() -> None:
    tensors = {**TENSORS, "train_labels": torch.full_like(TENSORS["train_labels"], 3)}

    def changed(**settings: Any) -> list[int]:
        splits = splits_for(tensors, make_run(**{**FITS, "train_size": 60}, **settings))
        assert (splits.validation_labels == 3).all()  # nor are those of the test images touched
        return [k for k, label in enumerate(splits.train_labels.tolist()) if label != 3]

    assert changed() == []
    wrong = changed(label_noise=0.5)
    assert 20 <= len(wrong) <= 30  # of 30 redrawn, a tenth by chance right
    assert wrong == changed(label_noise=0.5, l2=0, lr=3, steps=7)
    assert wrong != changed(label_noise=0.5, seed=4)
    assert (tensors["train_labels"] == 3).all()
