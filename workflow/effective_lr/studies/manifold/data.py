"""The corpus as training and validation windows.

The text is cut into blocks of 2,000 symbols; every tenth is validation. A training window lies within one run of nine
training blocks, a validation window within one block, so that no symbol is seen in both.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from effective_lr.errors import UserError
from effective_lr.studies.manifold.settings import Run

BLOCK = 2_000  # symbols
PERIOD = 10  # of every so many blocks the last is validation


@dataclass(frozen=True, eq=False)
class Part:
    """The stretches of one part of the text, as tensors (stretches,) on the CPU; windows never cross their ends."""

    starts: Tensor
    lengths: Tensor

    def windows(self, symbols: int) -> int:
        """How many windows of so many symbols there are."""
        return int((self.lengths - symbols + 1).clamp(min=0).sum())

    def window_starts(self, places: Tensor, symbols: int) -> Tensor:
        """Where the windows with these places, from 0 to `windows(symbols) - 1`, start in the text."""
        counts = (self.lengths - symbols + 1).clamp(min=0)
        ends = counts.cumsum(0)
        stretch = torch.searchsorted(ends, places, right=True)
        return self.starts[stretch] + places - (ends - counts)[stretch]


def split(symbols: int) -> tuple[Part, Part]:
    """The training and the validation part of a text of so many symbols."""
    period = torch.arange(0, symbols, BLOCK * PERIOD)
    train_lengths = (symbols - period).clamp(max=BLOCK * (PERIOD - 1))
    starts = period + BLOCK * (PERIOD - 1)
    starts = starts[starts < symbols]
    return Part(period, train_lengths), Part(starts, (symbols - starts).clamp(max=BLOCK))


@dataclass(frozen=True, eq=False)
class Data:
    """`text` (N,) on the device; `validation` int64 (batches, batch size, context + 1), the same windows for every
    seed."""

    text: Tensor
    train: Part
    validation: Tensor

    def windows(self, starts: Tensor, symbols: int) -> Tensor:
        """The windows, int64 (len(starts), symbols), that start at these places of the text."""
        return cut(self.text, starts.to(self.text.device), symbols)


def cut(text: Tensor, starts: Tensor, symbols: int) -> Tensor:
    places = starts[..., None] + torch.arange(symbols, device=text.device)
    if text.dtype is torch.uint16:  # which PyTorch cannot index everywhere
        return text.view(torch.int16)[places].long() & 0xFFFF
    return text[places].long()


def load(tensors: dict[str, Tensor], run: Run, device: torch.device) -> Data:
    """What the runs of a shard share. Raises UserError where a symbol is not in the vocabulary or the text is too
    short."""
    text = tensors["text"]
    largest = int((text.to(torch.int32) if text.dtype is torch.uint16 else text).max())
    if largest >= run.vocabulary:
        raise UserError(
            f"vocabulary = {run.vocabulary}, but the corpus has the symbol {largest}; use at least {largest + 1}"
        )
    symbols = run.context + 1
    train, held_out = split(len(text))
    if min(train.windows(symbols), held_out.windows(symbols)) == 0:
        raise UserError(
            f"the corpus has {len(text)} symbols, too few for a window of {symbols} in its training and its validation "
            f"part; use one with more than {BLOCK * (PERIOD - 1) + symbols}, or a shorter context"
        )
    text = text.to(device)
    count = run.validation_batches * run.validation_batch_size
    spread = torch.arange(count) * (held_out.windows(symbols) - 1) // max(count - 1, 1)
    starts = held_out.window_starts(spread, symbols).view(run.validation_batches, run.validation_batch_size)
    return Data(text, train, cut(text, starts.to(device), symbols))
