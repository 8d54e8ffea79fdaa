"""Where tabular data come from, that they are what they should be, and how a message names what cannot be had."""

import os
import subprocess
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch

from effective_lr.errors import UserError
from effective_lr.prepare import tabular, text
from effective_lr.prepare.sources import (
    COOLING_LOAD,
    FOLDER_VARIABLE,
    GOLUB_38,
    GOLUB_72,
    WHEEL,
    Missing,
    Source,
    local_file,
)

FOLDER = os.environ.get(FOLDER_VARIABLE, "")  # before a test removes it


def needs(*sources: Source) -> pytest.MarkDecorator:
    there = bool(FOLDER) and all(Path(FOLDER, source.path).is_file() for source in sources)
    names = ", ".join(source.path for source in sources)
    return pytest.mark.skipif(not there, reason=f"{FOLDER_VARIABLE} names no folder with {names}")


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder, no other folder, no network and no apt."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no network here")

    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(subprocess, "run", refuse)
    return tmp_path


def test_what_cannot_be_had_is_missing_with_one_sentence(nowhere: Path) -> None:
    paths_of = {tabular.cooling_load: ["enb2012"], tabular.leukemia: ["golub_72", "golub_38"]}
    for prepare, paths in {**paths_of, text.shakespeare: [WHEEL.path]}.items():
        with pytest.raises(Missing) as error:
            prepare(nowhere)
        assert all(word in str(error.value) for word in [*paths, str(nowhere), FOLDER_VARIABLE])
        assert "\n" not in str(error.value)


def test_the_folder_of_the_variable_comes_after_the_data_folder(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = nowhere / "other"
    (other / "enb2012").mkdir(parents=True)
    (other / COOLING_LOAD.path).write_text("second")
    monkeypatch.setenv(FOLDER_VARIABLE, str(other))
    assert local_file(nowhere, COOLING_LOAD.path) == other / COOLING_LOAD.path
    (nowhere / "ENB2012_data.csv").write_text("first")
    assert local_file(nowhere, COOLING_LOAD.path) == nowhere / "ENB2012_data.csv"


def test_the_package_is_unpacked_and_not_installed(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for apt and dpkg; what they give is checked like any file."""
    commands: list[list[str]] = []

    def run(command: list[str], cwd: str, **kwargs: object) -> None:
        commands.append(command)
        path = Path(cwd, GOLUB_38.inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"another file")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(UserError, match=rf"apt-get download.*{GOLUB_38.sha256}"):
        tabular.leukemia(nowhere)
    assert commands == [["sh", "-c", GOLUB_38.command]] and "install" not in GOLUB_38.command


@needs(COOLING_LOAD)
def test_cooling_load_has_12_shapes_and_a_singular_covariance(tmp_path: Path) -> None:
    tensors = tabular.cooling_load(tmp_path).tensors
    x, y = (tensors[name].numpy() for name in ("x", "y"))
    shape = np.unique(x[:, :5], axis=0, return_inverse=True)[1].reshape(-1)
    assert x.shape == (768, 8) and np.bincount(shape).tolist() == [64] * 12
    np.testing.assert_allclose(x[:, 1], x[:, 2] + 2 * x[:, 3], atol=1e-9)
    assert np.linalg.matrix_rank(x - x.mean(0)) == 7
    means = np.array([y[shape == k].mean() for k in range(12)])
    assert y.std() == pytest.approx(9.51, abs=0.01)
    assert means.var() / y.var() == pytest.approx(0.922, abs=0.001)


def gse(samples: int = 64, genes: int = 2000) -> list[list[str]]:
    """The lines of a user's file, in cells."""
    random = np.random.default_rng(0)
    lines = [[f"class {k % 5}", *map(str, random.normal(size=genes).round(3))] for k in range(samples)]
    return [["class", *(f"g{j}" for j in range(genes))], *lines]


def test_a_user_s_file_of_gse9476_is_read_or_named_with_what_is_wrong(nowhere: Path) -> None:
    with pytest.raises(Missing, match=r"gse9476/gse9476.csv is neither in .*never downloaded"):
        tabular.gse9476(nowhere)
    path = nowhere / "gse9476.csv"

    def read(cells: list[list[str]]) -> dict[str, torch.Tensor]:
        path.write_text("\n".join(",".join(line) for line in cells) + "\n")
        return tabular.gse9476(nowhere).tensors

    found = read(gse())
    assert found["x"].shape == (64, 2000) and found["y"].unique().tolist() == [0, 1, 2, 3, 4]
    single, missing, constant, short, long = (gse() for _ in range(5))
    for k, line in enumerate(single[1:]):
        line[0] = f"class {min(k, 4)}"
    missing[3][7] = ""
    short[5].pop()
    long[5].append("1")
    for line in constant[1:]:
        line[4] = "1.5"
    for cells, words in [
        (gse(63), "63 samples of 2000 genes.*expected 64"),
        (gse(64, 1999), "64 samples of 1999 genes"),
        (single, r"class 3 \(1\), class 4 \(60\); expected .* 5 classes of at least 2"),
        (missing, "g6 is not a number"),
        (constant, "g3 is .*constant"),
        (short, "g1999 is not a number"),
        (long, "no table .*line 6"),
    ]:
        with pytest.raises(UserError, match=words) as error:
            read(cells)
        assert not isinstance(error.value, Missing) and "\n" not in str(error.value)


@needs(GOLUB_72, GOLUB_38)
def test_provenance_of_the_3051_genes(nowhere: Path) -> None:
    """Either file alone gives the 38 samples: the filter leaves exactly 3051 of 7129 genes, multtest's matrix to its
    rounding, with its labels."""
    found = {}
    for source in (GOLUB_72, GOLUB_38):
        alone = nowhere / Path(source.path).stem
        alone.mkdir()
        (alone / Path(source.path).name).write_bytes(Path(FOLDER, source.path).read_bytes())
        prepared = tabular.leukemia(alone)
        assert list(prepared.checksums) == [source.path]
        found[source] = [prepared.tensors[name].numpy() for name in ("x", "y")]
    (x, y), (reference, labels) = found.values()
    assert x.shape == reference.shape == (38, 3051) and y.sum() == 11
    distance = np.abs(x[:, None] - reference[None]).max(2)
    partner = distance.argmin(1)
    assert distance.min(1).max() <= 5e-6 and len(set(partner)) == 38  # rounded to five decimals, in another order
    assert (labels[partner] == y).all()
