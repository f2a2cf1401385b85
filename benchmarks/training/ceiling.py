"""All weights trained without privacy, as anybody would: what a private job can hope for at most."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.training.jobs import Data
from benchmarks.training.processes import Commands, clock
from dpcore.models import build_model, load_tokenizer
from dpcore.tasks import make_task


@dataclass(frozen=True)
class Plain:
    """AdamW, shuffled batches, a rate that falls linearly to zero. The seed drives the head and the shuffling."""

    base: Path
    seed: int
    epochs: int = 2
    batch: int = 32
    rate: float = 1e-4


def commands(plain: Plain, data: Data) -> Commands:
    """train(): the score of what leaves, seconds of it, and nothing of its memory. untrained(): the score before."""
    torch.manual_seed(plain.seed)
    task = make_task(data.task, load_tokenizer(plain.base), labels=data.labels, max_length=data.max_length)
    model = build_model(data.task, plain.base, data.labels, seed=plain.seed)
    records = task.encode(data.train.columns, data.train.labels or ())
    lengths = records.lengths
    steps = plain.epochs * -(-len(data.train) // plain.batch)

    def score() -> float:
        return float(task.metrics(model, data.evaluate.columns, data.evaluate.labels or ())[data.metric])

    def train() -> tuple[float, float, int]:
        began, order = clock(torch.device("cpu")), np.random.default_rng(plain.seed)
        optimizer = torch.optim.AdamW(model.parameters(), lr=plain.rate)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
        for _ in range(plain.epochs):
            shuffled = order.permutation(len(data.train))
            for start in range(0, len(shuffled), plain.batch):
                batch = shuffled[start : start + plain.batch]
                task.losses(model, records, batch, int(lengths[batch].max())).mean().backward()
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
        seconds = clock(torch.device("cpu")) - began
        return score(), seconds, 0

    return {"train": train, "untrained": score}
