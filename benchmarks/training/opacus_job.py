"""The same job in Opacus: the same model, weights that train, rate of draws, norm and noise, in its loop with hooks."""

from functools import partial

import torch

from benchmarks.training.jobs import Data, Job, program
from benchmarks.training.loops import Counted, Usual, opacus_steps
from benchmarks.training.processes import Commands, clock
from benchmarks.training.steps import Opacus
from dpcore.methods import get_trainer
from dpcore.models import build_model, load_tokenizer
from dpcore.tasks import make_task
from dpcore.word_head import start_from_words

AT_ONCE = 32
"""Records of a physical batch: more want more memory, and are no faster on a processor."""


def commands(job: Job, data: Data) -> Commands:
    """train(steps): the score after so many steps of the job's own, its rate falling as the job's does, and seconds."""
    made, device = program(job, data), torch.device("cpu")
    (phase,) = made.phases
    tokenizer, words = load_tokenizer(job.base), made.head == "words"
    task = make_task(data.task, tokenizer, labels=data.labels, max_length=data.max_length)
    base = build_model(data.task, job.base, data.labels, seed=made.seed, words=words)
    model = get_trainer(made.method).attach(base, made.options, task=data.task, seed=made.seed)
    if words:
        start_from_words(model, tokenizer, data.labels)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # the service trains without, and Opacus wants a model in training mode
    model.train()
    records = task.encode(data.train.columns, data.train.labels or ())
    opacus = Opacus(
        model,
        ghost=False,
        expected_batch=phase.expected_batch,
        noise=phase.mechanism.noise_multiplier,
        rate=phase.learning_rate,
    )
    opacus.model.config = model.config
    counted = Counted(task, partial(Usual, positions=True))

    def train(steps: int) -> tuple[float, float]:
        falling = torch.optim.lr_scheduler.LinearLR(opacus.optimiser.original_optimizer, 1.0, 0.0, phase.steps)
        turns = opacus_steps(opacus, counted, records, phase.expected_batch, AT_ONCE)
        next(turns)
        began = clock(device)
        for _ in range(steps):
            next(turns)
            falling.step()
        seconds = clock(device) - began
        return float(task.metrics(model, data.evaluate.columns, data.evaluate.labels or ())[data.metric]), seconds

    return {"train": train}
