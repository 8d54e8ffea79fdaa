"""Cooling load (ENB2012), leukemia (Golub et al. 1999) and diabetes, each as a few float64 tensors.

A file is taken from the first of these places: the data folder, the folder that the environment variable
EFFECTIVE_LR_DATA names, its public home (pinned to a commit). Its bytes are checked by sha256 wherever it was found.
What cannot be had raises `Missing`; what was found damaged raises `UserError`.
"""

import hashlib
import subprocess
import urllib.request
import warnings
from http.client import HTTPException
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from effective_lr.errors import UserError
from effective_lr.prepare.dataset import FOLDER_VARIABLE, Missing, Prepared, local_file
from effective_lr.prepare.sources import COOLING_LOAD, GOLUB_38, GOLUB_72, Source

TIMEOUT = 20.0  # seconds without an answer
GENES = 3051
AGREEMENT = 5e-6  # multtest's matrix is rounded to five decimals


def cooling_load(folder: Path) -> Prepared:
    """`x` (768, 16): X1..X5 and X7, then X6 (4) and X8 (6) as indicators; `y` (768,) cooling load; `shape` (768,).

    A shape is one of the 12 buildings: equal X1 to X5. X6 (orientation) and X8 (distribution of glazing) are codes.
    """
    content, where = obtain(COOLING_LOAD, folder)
    table = np.loadtxt(BytesIO(content), delimiter=",", skiprows=1)
    if table.shape != (768, 10) or not np.isfinite(table).all():
        raise UserError(
            f"{where}: a table of {table.shape} was found, expected 768 rows of 10 numbers: replace the file"
        )
    codes = [np.equal.outer(table[:, j], np.unique(table[:, j])) for j in (5, 7)]
    x = np.hstack([table[:, [0, 1, 2, 3, 4, 6]], *codes])
    shape = np.unique(table[:, :5], axis=0, return_inverse=True)[1].reshape(-1)
    return prepared({"x": x, "y": table[:, 9], "shape": shape}, [COOLING_LOAD], where)


def leukemia(folder: Path) -> Prepared:
    """`x` (38, 3051) and `y` (38,) with 1 for AML: multtest's matrix, or the same 38 of the 72 samples by
    `preprocessed`."""
    try:
        content, where = obtain(GOLUB_38, folder)
    except Missing as missing:
        try:
            found = leukemia_72(folder)
        except Missing as also:
            raise Missing(f"{missing}; {also}") from also
        return Prepared({name: found.tensors[name] for name in ("x", "y")}, found.facts, found.source)
    x, y = multtest(read_rdata(content, where))
    return prepared({"x": x, "y": y}, [GOLUB_38], where)


def leukemia_72(folder: Path) -> Prepared:
    """`x` (38, 3051), `y` (38,), `test_x` (34, 3051) and `test_y` (34,), from raw intensities by `preprocessed`.

    Where multtest's 38 samples lie beside, they must be the same.
    """
    content, where = obtain(GOLUB_72, folder)
    stored = read_rdata(content, where)
    (train, y), (test, test_y) = (intensities(stored[name]) for name in ("golub_train", "golub_test"))
    x, test_x = preprocessed(train, test)
    if x.shape != (38, GENES):
        raise UserError(f"{where}: {x.shape[1]} genes pass the filter, expected {GENES}: replace the file")
    local = locate(GOLUB_38, folder)
    if local is not None:
        check_provenance(x, y, *multtest(read_rdata(read(GOLUB_38, local), str(local))))
    return prepared({"x": x, "y": y, "test_x": test_x, "test_y": test_y}, [GOLUB_72], where)


def diabetes(folder: Path) -> Prepared:
    """`x` (442, 10) and `y` (442,), as scikit-learn ships them, unscaled. `folder` is not read."""
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True, scaled=False)
    return prepared({"x": x, "y": y}, [], "scikit-learn package")


def preprocessed(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intensities (samples, genes) as multtest prepares them: clip to 100..16000, keep genes with max/min > 5 and
    max − min > 500 among the training samples, log10, standardize each sample (ddof 1)."""
    clipped = [np.clip(values, 100, 16_000) for values in (train, test)]
    low, high = clipped[0].min(0), clipped[0].max(0)
    kept = (high / low > 5) & (high - low > 500)
    logs = [np.log10(values[:, kept]) for values in clipped]
    x, test_x = ((v - v.mean(1, keepdims=True)) / v.std(1, ddof=1, keepdims=True) for v in logs)
    return x, test_x


def check_provenance(x: np.ndarray, y: np.ndarray, reference: np.ndarray, labels: np.ndarray) -> None:
    """That our 38 samples are multtest's, each once, in any order, to its rounding, with its labels."""
    distance = np.abs(x[:, None] - reference[None]).max(2)
    partner = distance.argmin(1)
    worst = float(distance.min(1).max())
    if worst > AGREEMENT or len(set(partner)) < len(partner) or (labels[partner] != y).any():
        raise UserError(
            f"golub_72.RData and golub_38.RData differ by {worst:.2g} or in their labels, expected the same 38 "
            f"samples to {AGREEMENT:g}: replace both files"
        )


def multtest(stored: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(stored["golub"], dtype=float).T, np.asarray(stored["golub.cl"], dtype=float)


def intensities(group: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(group["x"], dtype=float), (np.asarray(group["y"]) == "AML").astype(float)


def read_rdata(content: bytes, where: str) -> dict[str, Any]:
    import rdata  # it brings pandas and xarray along

    with TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of R classes that it has no Python class for
        path = Path(scratch, "data.RData")
        path.write_bytes(content)
        try:
            stored: dict[str, Any] = rdata.read_rda(path)
        except Exception as error:  # a file that is no RData makes it raise nearly anything
            raise UserError(f"{where} cannot be read as RData ({error}): replace the file") from error
    return stored


def prepared(arrays: dict[str, np.ndarray], sources: list[Source], where: str) -> Prepared:
    tensors = {
        name: torch.tensor(values, dtype=torch.int64 if name == "shape" else torch.float64)
        for name, values in arrays.items()
    }
    return Prepared(tensors, {"source_checksums": {s.path: f"sha256:{s.sha256}" for s in sources}}, where)


# Where files come from


def obtain(source: Source, folder: Path) -> tuple[bytes, str]:
    """The checked content of a file and where it was found; Missing if no place has it."""
    path = locate(source, folder)
    if path is not None:
        return read(source, path), f"local file {path}"
    content = download(source, folder) if source.url else unpack(source, folder)
    where = source.url or f"Debian package {source.package}"
    if (found := hashlib.sha256(content).hexdigest()) != source.sha256:
        raise UserError(
            f"{where} gave a file with sha256 {found}, expected {source.sha256}: put {source.path} into {folder}"
        )
    return content, where


def locate(source: Source, folder: Path) -> Path | None:
    """The first local place that has the file, by its path or its bare name."""
    return local_file(folder, source.path, Path(source.path).name)


def read(source: Source, path: Path) -> bytes:
    content = path.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != source.sha256:
        raise UserError(f"{path} has sha256 {found}, expected {source.sha256}: replace or delete it")
    return content


def download(source: Source, folder: Path) -> bytes:
    try:
        with urllib.request.urlopen(source.url, timeout=TIMEOUT) as answer:
            content: bytes = answer.read()
    except (OSError, HTTPException, ValueError) as error:
        raise Missing(missing(source, folder, f"{source.url} could not be downloaded ({error})")) from error
    return content


def unpack(source: Source, folder: Path) -> bytes:
    """The file inside a Debian package, which is downloaded and unpacked, but not installed."""
    with TemporaryDirectory() as scratch:
        try:
            for command in (["apt-get", "download", source.package], ["sh", "-c", "dpkg-deb -x *.deb unpacked"]):
                subprocess.run(command, cwd=scratch, check=True, capture_output=True, timeout=120)
            return Path(scratch, "unpacked", source.inside).read_bytes()
        except (OSError, subprocess.SubprocessError) as error:
            raise Missing(
                missing(source, folder, f"the Debian package {source.package} could not be downloaded")
            ) from error


def missing(source: Source, folder: Path, why: str) -> str:
    return (
        f"{source.path} is neither in {folder} nor in the folder named by {FOLDER_VARIABLE}, and {why}: "
        f"put it into {folder}"
    )
