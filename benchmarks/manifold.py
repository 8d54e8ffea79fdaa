"""What a step of each optimizer costs beside torch.optim.AdamW on the same network, and the loop beside a plain one.

A maintainer's tool outside the package: PYTHONPATH=workflow python benchmarks/manifold.py --text
results/data/shakespeare.pt

All strategies take turns in one process, one step each, for many rounds; the median over rounds is what counts, and
ratios of medians of one such run. Times of different runs or machines must not be compared. Targets: a constraint costs
Adam at most a tenth of a step, the matrix sign at most 35 %.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effective_lr.engine import grid
from effective_lr.engine.study import load
from effective_lr.studies.manifold import training
from effective_lr.studies.manifold.data import Data
from effective_lr.studies.manifold.networks import GPT, loss
from effective_lr.studies.manifold.settings import Run

ROOT = Path(__file__).parents[1]
ARMS = ("adamw", "adam0", "adamh", "macro-F", "macro-S", "muonh")
TARGETS = {"adamh": 1.10, "macro-F": 1.35}  # at most, over torch.optim.AdamW on the same network, with RMSNorm
WARM_UP = 3  # rounds


class PlainBlock(nn.Module):
    """A block as tutorials write it: one matrix for queries, keys and values, modules of torch.nn throughout."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.qkv, self.output = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width, bias=False), nn.GELU(), nn.Linear(4 * width, width, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        shape = (x.shape[0], x.shape[1], self.heads, -1)
        q, k, v = (part.view(shape).transpose(1, 2) for part in self.qkv(self.norm_1(x)).chunk(3, dim=-1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.output(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm_2(x))


class PlainGPT(nn.Module):
    def __init__(self, run: Run) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(run.vocabulary, run.width), nn.Embedding(run.context, run.width)
        self.blocks = nn.Sequential(*(PlainBlock(run.width, run.heads) for _ in range(run.layers)))
        self.norm, self.head = nn.RMSNorm(run.width, eps=1e-6), nn.Linear(run.width, run.vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        return self.head(self.norm(self.blocks(x)))


def plain_loop(run: Run, text: Tensor) -> Callable[[], None]:
    """One step of the loop that a tutorial would write for this data, by torch.optim.AdamW."""
    torch.manual_seed(run.seed)
    network = PlainGPT(run)
    adamw = torch.optim.AdamW(network.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)

    def step() -> None:
        starts = torch.randint(len(text) - run.context - 1, (run.batch_size,))
        windows = torch.stack([text[start : start + run.context + 1] for start in starts.tolist()]).long()
        logits = network(windows[:, :-1])
        value = F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        adamw.zero_grad(set_to_none=True)
        value.backward()
        adamw.step()
        value.item()

    return step


def same_network(run: Run, data: Data) -> Callable[[], None]:
    """One step of the study's network with torch.optim.AdamW for all parameters, and nothing measured."""
    trained = training.Training(run, data)
    network: GPT = trained.network
    adamw = torch.optim.AdamW(network.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)

    def step() -> None:
        adamw.zero_grad(set_to_none=True)
        value = loss(network, trained.next_batch())
        value.backward()
        adamw.step()
        value.item()

    return step


def study_step(run: Run, data: Data) -> Callable[[], None]:
    """One step of the study's loop, without probes and evaluations."""
    trained = training.Training(run, data)
    trained.probes, trained.evaluations = set(), set()

    def step() -> None:
        trained.advance()
        trained.step %= max(run.late_start, 1)  # never late: samples of late means are measurement too

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default="study", help="whose network is timed")
    parser.add_argument("--text", type=Path, default=ROOT / "results/data/shakespeare.pt", help="the prepared corpus")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    arguments = parser.parse_args()

    study = load("manifold")
    _, experiments = grid.load_scale(ROOT / "config/manifold", arguments.scale, study)
    base = experiments["matched"][0].changed(lr_factor=0.01, seed=0)  # small steps: nothing may diverge
    tensors = torch.load(arguments.text, weights_only=True)
    data = training.load(tensors, base, torch.device("cpu"))
    strategies = {"plain loop": plain_loop(base, tensors["text"])}
    for rms_norm in ("pre", "none"):
        strategies[f"torch AdamW, {rms_norm}"] = same_network(base.changed(rms_norm=rms_norm), data)
        for optimizer in ARMS:
            run = base.changed(optimizer=optimizer, rms_norm=rms_norm, initial_norm=1.0)
            strategies[f"{optimizer}, {rms_norm}"] = study_step(run, data)

    times: dict[str, list[float]] = {name: [] for name in strategies}
    for turn in range(arguments.rounds + WARM_UP):
        for name, step in strategies.items():
            start = time.perf_counter()
            step()
            if turn >= WARM_UP:
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    symbols = base.batch_size * base.context
    rows = {
        name: {
            "ms": round(1000 * value, 2),
            "symbols_per_second": round(symbols / value),
            "over_torch_adamw": round(value / medians[f"torch AdamW, {'none' if 'none' in name else 'pre'}"], 3),
            "over_plain_loop": round(value / medians["plain loop"], 3),
        }
        for name, value in medians.items()
    }
    for name, row in rows.items():
        print(f"{name:16}", *(f"{key} {value:<9}" for key, value in row.items()))
    for optimizer, target in TARGETS.items():
        ratio = rows[f"{optimizer}, pre"]["over_torch_adamw"]
        met = "met" if ratio <= target else "MISSED"
        print(f"{optimizer}: {ratio} times a step of torch.optim.AdamW, target {target}: {met}")
    if arguments.output:
        machine = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__, "threads": 1}
        found = {"scale": arguments.scale, "rounds": arguments.rounds, "machine": machine, "strategies": rows}
        arguments.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
