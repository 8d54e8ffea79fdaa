"""Cooling load (ENB2012), leukemia (Golub et al. 1999) and diabetes, each as a few float64 tensors."""

import warnings
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from effective_lr.prepare.dataset import Prepared
from effective_lr.prepare.sources import COOLING_LOAD, GOLUB_38, GOLUB_72, Missing, Source, checksums, obtain


def cooling_load(folder: Path) -> Prepared:
    """`x` (768, 16): X1..X5 and X7, then X6 (4) and X8 (6) as indicators; `y` (768,) cooling load; `shape` (768,).

    A shape is one of the 12 buildings: equal X1 to X5. X6 (orientation) and X8 (distribution of glazing) are codes.
    """
    content, path = obtain(COOLING_LOAD, folder)
    table = np.loadtxt(BytesIO(content), delimiter=",", skiprows=1)
    codes = [np.equal.outer(table[:, j], np.unique(table[:, j])) for j in (5, 7)]
    x = np.hstack([table[:, [0, 1, 2, 3, 4, 6]], *codes])
    shape = np.unique(table[:, :5], axis=0, return_inverse=True)[1].reshape(-1)
    return prepared({"x": x, "y": table[:, 9], "shape": shape}, [COOLING_LOAD], path)


def leukemia(folder: Path) -> Prepared:
    """`x` (38, 3051) and `y` (38,) with 1 for AML: multtest's matrix, or the same 38 of the 72 samples by
    `preprocessed`."""
    try:
        content, path = obtain(GOLUB_38, folder)
    except Missing as missing:
        try:
            found = leukemia_72(folder)
        except Missing as also:
            raise Missing(f"{missing}; {also}") from also
        return Prepared({name: found.tensors[name] for name in ("x", "y")}, found.facts, found.source)
    x, y = multtest(read_rdata(content))
    return prepared({"x": x, "y": y}, [GOLUB_38], path)


def leukemia_72(folder: Path) -> Prepared:
    """`x` (38, 3051), `y` (38,), `test_x` (34, 3051) and `test_y` (34,), from raw intensities by `preprocessed`.

    The 38 samples are multtest's, to its rounding: a test holds that.
    """
    content, path = obtain(GOLUB_72, folder)
    stored = read_rdata(content)
    (train, y), (test, test_y) = (intensities(stored[name]) for name in ("golub_train", "golub_test"))
    x, test_x = preprocessed(train, test)
    return prepared({"x": x, "y": y, "test_x": test_x, "test_y": test_y}, [GOLUB_72], path)


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


def multtest(stored: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(stored["golub"], dtype=float).T, np.asarray(stored["golub.cl"], dtype=float)


def intensities(group: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(group["x"], dtype=float), (np.asarray(group["y"]) == "AML").astype(float)


def read_rdata(content: bytes) -> dict[str, Any]:
    import rdata  # it brings pandas and xarray along

    with TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of R classes that it has no Python class for
        path = Path(scratch, "data.RData")
        path.write_bytes(content)
        stored: dict[str, Any] = rdata.read_rda(path)
    return stored


def prepared(arrays: dict[str, np.ndarray], sources: list[Source], where: Path | str) -> Prepared:
    tensors = {
        name: torch.tensor(values, dtype=torch.int64 if name == "shape" else torch.float64)
        for name, values in arrays.items()
    }
    return Prepared(tensors, {"source_checksums": checksums(sources)}, where)
