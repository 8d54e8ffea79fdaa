"""The plays are those that the chapter describes; windows never leave their part; a damaged file is told."""

from pathlib import Path

import numpy as np
import pytest
import torch

from effective_lr.errors import UserError
from effective_lr.prepare import text
from effective_lr.prepare.dataset import Prepared
from effective_lr.prepare.sources import Missing
from effective_lr.studies.manifold import data as windows
from effective_lr.studies.manifold.training import load
from shared import CPU

from .conftest import make_run


def entropies(symbols: np.ndarray, orders: int) -> list[float]:
    """Entropy of a symbol given the 0, 1, … before it, in nats."""
    joint, grams = [0.0], symbols[:0]
    for order in range(orders):
        grams = symbols if order == 0 else grams[:-1] * 84 + symbols[order:]
        p = np.unique(grams, return_counts=True)[1] / len(grams)
        joint.append(float(-(p * np.log(p)).sum()))
    return list(np.diff(joint))


def test_the_plays_are_those_that_the_chapter_describes(corpus: Prepared) -> None:
    symbols = corpus.tensors["text"].numpy().astype(np.int64)
    characters = corpus.tensors["symbols"].numpy()
    assert (corpus.facts["plays"], len(symbols), len(characters)) == (38, 5_318_767, 84)
    assert sorted(characters) == list(characters)
    assert [chr(c) for c in characters if c > 127] == ["—"]
    assert (symbols == np.searchsorted(characters, ord("—"))).sum() == 64
    assert entropies(symbols, 4) == pytest.approx([3.3026, 2.4697, 1.8492, 1.4773], abs=2e-4)
    train, validation = windows.split(len(symbols))
    assert (int(train.lengths.sum()), int(validation.lengths.sum())) == (4_788_000, 530_767)
    assert len(validation.lengths) == 266
    seen = [symbols[start : start + length] for start, length in zip(train.starts, train.lengths, strict=True)]
    assert len(np.unique(np.concatenate(seen))) == 84  # training has every symbol


@pytest.mark.parametrize("length", [20_000, 45_000, 18_001, 38_500, 39_999])
def test_every_window_lies_within_its_part_and_every_place_is_reached(length: int) -> None:
    context = 7
    block = torch.arange(length) // windows.BLOCK
    is_validation = block % windows.PERIOD == windows.PERIOD - 1
    for part, expected in zip(windows.split(length), (False, True), strict=True):
        count = part.windows(context)
        starts = part.window_starts(torch.arange(count), context)
        places = starts[:, None] + torch.arange(context)
        assert (is_validation[places] == expected).all()
        if expected:
            assert (block[places] == block[places[:, :1]]).all()
        assert len(starts.unique()) == count
        # every window of one part that does not cross into the other, nor from one period into the next
        candidates = torch.arange(length - context + 1)[:, None] + torch.arange(context)
        inside = (is_validation[candidates] == expected).all(1)
        period = candidates // (windows.BLOCK * windows.PERIOD)
        assert count == int((inside & (period[:, 0] == period[:, -1])).sum())


def test_tokens_are_the_users_own_and_what_does_not_fit_is_told(tmp_path: Path) -> None:
    with pytest.raises(Missing, match=r"tokens\.bin"):
        text.tokens(tmp_path)
    (tmp_path / text.TOKENS).write_bytes(b"abc")
    with pytest.raises(UserError, match="3 bytes"):
        text.tokens(tmp_path)
    values = np.arange(30_000, dtype="<u2")
    values[5] = 65_535  # does not fit a signed number of 16 bits
    values.tofile(tmp_path / text.TOKENS)
    prepared = text.tokens(tmp_path)
    data = load(prepared.tensors, make_run(corpus="tokens", vocabulary=65_536), CPU)
    assert data.windows(torch.tensor([3]), 4).tolist() == [[3, 4, 65_535, 6]]
    with pytest.raises(UserError, match=r"vocabulary = 11.*65535.*65536"):
        load(prepared.tensors, make_run(corpus="tokens"), CPU)
    with pytest.raises(UserError, match=r"18000 symbols.*13"):
        load({"text": torch.zeros(18_000, dtype=torch.uint8)}, make_run(), CPU)
