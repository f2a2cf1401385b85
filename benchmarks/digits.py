"""What does a vision transformer that was trained publicly on some digits learn privately of others?

{bitfit,lora,full}/eps{1,8,inf}/accuracy    on digits 5 to 9 that were kept apart, the mean over seeds
nonprivate/accuracy                         all weights with AdamW, without clipping and without noise
head/accuracy                               before anything private: a head drawn anew on the public model

scikit-learn's 1,797 digits of 8 x 8 pixels (pip install scikit-learn): a transformer of 4 layers of 64 learns the 901
from 0 to 4 without privacy, which are public here; then, with a head drawn anew, from three quarters of the 896 from
5 to 9 by the method, with delta a tenth of one picture's part. Steps, batch and rate are chosen on public digits alone
(--choosing): 0 and 1 are then public, and 2 to 4 private. eps inf: the same steps, clipped and without
noise. --quick uses made-up pictures.
"""

import statistics
import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from benchmarks.common import Figure, parser, report, versions
from dpcore.methods import get_trainer
from dpcore.run import run
from dpcore.tasks.image_classification import ImageClassification, Pictures
from dpcore.terms import accounting
from dpcore.terms.facts import ModelFacts
from dpcore.terms.methods import get_method
from dpcore.terms.program import Program, parts, scaled

NAME = "digits"
SIDE, PATCH, WIDTH, LAYERS = 8, 2, 64, 4
TOKENS = (SIDE // PATCH) ** 2 + 1
RATES = {"bitfit": 0.01, "lora": 0.03, "full": 0.03}
STEPS, RATE_OF_DRAW = 60, 0.25
LOOSE, NEXT_TO_NONE = 100.0, 1e-6
KIND = "classification"
"""Of the terms: a classifier, whatever it reads."""
FACTS = ModelFacts(
    model_type="vit",
    hidden_size=WIDTH,
    intermediate_size=2 * WIDTH,
    layers=LAYERS,
    heads=4,
    vocab_size=1,
    max_positions=TOKENS,
    biases=LAYERS * (8 * WIDTH) + WIDTH,
)


@dataclass(frozen=True)
class Split:
    """Pictures uint8 [n, 8, 8] of some classes, and the place of each one's."""

    pictures: list[np.ndarray]
    places: list[int]
    labels: tuple[str, ...]

    @property
    def task(self) -> ImageClassification:
        return ImageClassification(self.labels, SIDE, tokens=TOKENS, channels=1)

    @property
    def columns(self) -> dict[str, list[np.ndarray]]:
        return {"image": self.pictures}

    def records(self) -> Pictures:
        return self.task.encode(self.columns, self.places)

    def parted(self, seed: int) -> tuple["Split", "Split"]:
        """Three quarters and the rest."""
        order = np.random.default_rng(seed).permutation(len(self.places))
        cut = 3 * len(order) // 4
        return self._at(order[:cut]), self._at(order[cut:])

    def _at(self, rows: np.ndarray) -> "Split":
        return Split([self.pictures[i] for i in rows], [self.places[i] for i in rows], self.labels)


def digits(wanted: Sequence[int], *, made_up: bool) -> Split:
    """The pictures of some digits."""
    if made_up:
        draws = np.random.default_rng(0)
        numbers = draws.integers(0, 10, 200)
        images = draws.integers(0, 17, (200, SIDE, SIDE)) * (numbers[:, None, None] + 1) / 10
    else:
        try:
            from sklearn.datasets import load_digits  # type: ignore[import-not-found]
        except ImportError:
            sys.exit("the digits come with scikit-learn: pip install scikit-learn, or --quick for made-up pictures")
        images, numbers = load_digits(return_X_y=True)
        images = images.reshape(-1, SIDE, SIDE)
    kept = [i for i, number in enumerate(numbers) if number in wanted]
    pixels = np.clip(images * 255 / 16, 0, 255).astype(np.uint8)
    labels = tuple(str(number) for number in wanted)
    return Split([pixels[i] for i in kept], [labels.index(str(int(numbers[i]))) for i in kept], labels)


def model_of(labels: Sequence[str], seed: int) -> ViTForImageClassification:
    """Of random weights."""
    torch.manual_seed(seed)
    return ViTForImageClassification(
        ViTConfig(
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            intermediate_size=2 * WIDTH,
            image_size=SIDE,
            patch_size=PATCH,
            num_channels=1,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            num_labels=len(labels),
        )
    ).eval()


def trained(model: nn.Module, split: Split, *, epochs: int, seed: int, rate: float = 1e-3) -> nn.Module:
    """All weights, without privacy."""
    records, task, batch = split.records(), split.task, 32
    steps = epochs * -(-len(records) // batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    draws = np.random.default_rng(seed)
    for _ in range(epochs):
        for now in np.array_split(draws.permutation(len(records)), -(-len(records) // batch)):
            task.losses(model, records, now, TOKENS).mean().backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return model


def with_head(public: ViTForImageClassification, labels: Sequence[str], seed: int) -> ViTForImageClassification:
    """The public body under a head that is drawn anew."""
    model = model_of(labels, seed)
    model.vit.load_state_dict(public.vit.state_dict())
    return model


def program(method: str, epsilon: float, size: int, seed: int, numbers: dict[str, Any]) -> Program:
    """As a job on a budget of this epsilon that is made with the file; delta is a tenth of one picture's part."""
    spec = get_method(method)
    options, private = spec.Options(), epsilon < LOOSE
    asked = {"steps": STEPS, "batch_size": round(RATE_OF_DRAW * size), "learning_rate": RATES[method]} | numbers
    public: dict[str, Any] = {"task": KIND, "declared_size": size, "epsilon": epsilon, "facts": FACTS}
    phases = spec.phases(options, spec.resolve(spec.Request(**asked), options, **public), declared_size=size)
    delta = 1 / (10 * size)
    held = accounting.reference_filter(epsilon, delta, phases[0].mechanism.sample_rate, phases[0].steps)
    noise = accounting.calibrate(epsilon, delta, held, parts(phases)) if private else NEXT_TO_NONE
    wanted = options.model_dump(mode="json")
    return Program(method=method, options=wanted, max_length=TOKENS, seed=seed, phases=scaled(phases, noise))


def private(model: ViTForImageClassification, split: Split, made: Program) -> nn.Module:
    """What a job leaves."""
    trainer = get_trainer(made.method)
    attached = trainer.attach(model, made.options, task=KIND, seed=made.seed)
    run(
        model=attached,
        task=split.task,
        records=split.records(),
        program=made,
        begin=partial(trainer.begin, task=KIND),
        learns=trainer.learns,
        between=trainer.between,
        authorise=lambda phase, steps: steps,
        save=lambda data: None,
        should_stop=lambda: False,
    )
    return attached


def main(arguments: Sequence[str] | None = None) -> None:
    """Print and write the figures."""
    made = parser(__doc__)
    made.add_argument("--methods", nargs="+", default=list(RATES), choices=list(RATES))
    made.add_argument("--epsilons", nargs="+", type=float, default=[8.0, 1.0, float("inf")], help="(8 1 inf)")
    made.add_argument("--seeds", type=int, default=3, help="(3)")
    made.add_argument("--steps", type=int, default=STEPS, help=f"({STEPS})")
    made.add_argument("--learning-rate", type=float, help="of all methods; each has its own")
    made.add_argument("--choosing", action="store_true", help="leave the digits from 5 to 9 alone")
    options = made.parse_args(arguments)
    torch.set_num_threads(1)
    first, second = ((0, 1), (2, 3, 4)) if options.choosing else ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9))
    public, others = (digits(wanted, made_up=options.quick) for wanted in (first, second))
    seeds, epochs, steps = (1, 1, 2) if options.quick else (options.seeds, 30, options.steps)
    numbers = {"steps": steps} | ({} if options.learning_rate is None else {"learning_rate": options.learning_rate})

    body = trained(model_of(public.labels, 0), public, epochs=epochs, seed=0)
    assert isinstance(body, ViTForImageClassification)
    scores: dict[str, list[float]] = {}

    def score(case: str, model: nn.Module, test: Split) -> None:
        found = test.task.metrics(model, test.columns, test.places)["accuracy"]
        scores.setdefault(case, []).append(found)
        sys.stderr.write(f"{case} {found:.4f}\n")

    for seed in range(seeds):
        train, test = others.parted(seed)
        fresh = with_head(body, others.labels, seed)
        score("head", fresh, test)
        score("nonprivate", trained(deepcopy(fresh), train, epochs=epochs, seed=seed), test)
        for method in options.methods:
            for epsilon in options.epsilons:
                plan = program(method, min(epsilon, LOOSE), len(train.places), seed, numbers)
                score(f"{method}/eps{epsilon:g}", private(deepcopy(fresh), train, plan), test)
    about = {"seeds": seeds, "public": len(public.places), "private": 3 * len(others.places) // 4}
    figures = [
        Figure(NAME, f"{case}/accuracy", statistics.mean(found), "", None, {"scores": found, **about})
        for case, found in scores.items()
    ]
    detail = versions("torch", "transformers")
    report([Figure(f.benchmark, f.figure, f.value, f.unit, None, f.detail | detail) for f in figures], options.json)


if __name__ == "__main__":
    main()
