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


def entropies(symbols: np.ndarray, orders: int) -> list[float]:
    """Entropy of a symbol given the 0, 1, … before it, in nats."""
    joint = [0.0]
    for order in range(1, orders + 1):
        grams = np.zeros(len(symbols) - order + 1, dtype=np.int64)
        for k in range(order):
            grams = grams * 84 + symbols[k : len(symbols) - order + 1 + k]
        p = np.unique(grams, return_counts=True)[1] / len(grams)
        joint.append(float(-(p * np.log(p)).sum()))
    return list(np.diff(joint))


def test_the_plays_are_those_that_the_chapter_describes(corpus: Prepared) -> None:
    symbols = corpus.tensors["text"].numpy()
    characters = corpus.tensors["symbols"].numpy()
    assert corpus.facts["plays"] == 38
    assert len(symbols) == 5_318_767
    assert len(characters) == 84
    assert sorted(characters) == list(characters)
    assert [chr(c) for c in characters if c > 127] == ["—"]
    assert (symbols == np.searchsorted(characters, ord("—"))).sum() == 64
    assert len("".join(map(chr, characters[symbols])).encode()) == 5_318_895
    assert entropies(symbols, 4) == pytest.approx([3.3026, 2.4697, 1.8492, 1.4773], abs=2e-4)


def test_the_parts_have_the_sizes_of_the_chapter_and_training_has_every_symbol(corpus: Prepared) -> None:
    symbols = corpus.tensors["text"]
    train, validation = windows.split(len(symbols))
    assert int(train.lengths.sum()) == 4_788_000
    assert int(validation.lengths.sum()) == 530_767
    assert len(validation.lengths) == 266
    seen = torch.cat(
        [symbols[start : start + length] for start, length in zip(train.starts, train.lengths, strict=True)]
    )
    assert len(seen.unique()) == 84


@pytest.mark.parametrize("length", [20_000, 45_000, 18_001, 38_500, 39_999])
def test_every_window_lies_within_its_part_and_every_place_is_reached(length: int) -> None:
    context = 7
    is_validation = (torch.arange(length) // windows.BLOCK) % windows.PERIOD == windows.PERIOD - 1
    block = torch.arange(length) // windows.BLOCK
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


def test_tokens_are_the_users_own(tmp_path: Path, make_run) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Missing, match=r"tokens\.bin"):
        text.tokens(tmp_path)
    (tmp_path / text.TOKENS).write_bytes(b"abc")
    with pytest.raises(UserError, match="3 bytes"):
        text.tokens(tmp_path)
    values = np.arange(30_000, dtype="<u2")
    values[5] = 65_535  # does not fit a signed number of 16 bits
    values.tofile(tmp_path / text.TOKENS)
    prepared = text.tokens(tmp_path)
    run = make_run(corpus="tokens", vocabulary=65_536)
    data = load(prepared.tensors, run, torch.device("cpu"))
    assert data.windows(torch.tensor([3]), 4).tolist() == [[3, 4, 65_535, 6]]
    with pytest.raises(UserError, match=r"vocabulary = 11.*65535.*65536"):
        load(prepared.tensors, make_run(corpus="tokens"), torch.device("cpu"))


def test_a_short_text_is_told(make_run) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=r"18000 symbols.*13"):
        load({"text": torch.zeros(18_000, dtype=torch.uint8)}, make_run(), torch.device("cpu"))
