"""A silo on a tiny classifier, with whatever options and records."""

import pytest
import torch

from dpcore.federated import server
from dpcore.federated.silo import Silo, attach, factors
from dpcore.terms.federated.options import Options
from dpcore.terms.federated.silo import Request, phases, resolve
from dpcore.terms.program import Program, scaled
from tests.dpcore.conftest import MAX_LENGTH

RECORDS = 24


def make_options(**changes) -> Options:
    values = {"r": 2, "rounds": 4, "local_steps": 2, "server": "fedavg", "least_silos": 1}
    return Options(**values | changes)


def make_program(options: Options, *, size=RECORDS, noise=0.5, unit="record", batch=8, **asked) -> Program:
    numbers = resolve(Request(batch_size=batch, learning_rate=0.2, **asked), options, declared_size=size)
    planned = scaled(phases(options, numbers, declared_size=size), noise)
    return Program(method="federated-lora", unit=unit, max_length=MAX_LENGTH, phases=planned)


def awake(values, seed=5):
    """Factors that are not where they began, so that A has a gradient."""
    generator = torch.Generator().manual_seed(seed)
    return {n: v + 0.2 * torch.randn(v.shape, generator=generator, dtype=v.dtype) for n, v in values.items()}


@pytest.fixture
def make_silo(make_base, make_records, task):
    """A silo, and the server's state at its first round."""

    def make(
        options, *, name="a", records=None, dtype=torch.float32, owners=None, should_stop=lambda: False, **planned
    ):
        model = attach(make_base(), options, task="classification", seed=3).to(dtype)
        records = make_records(RECORDS) if records is None else records
        program = make_program(options, unit="record" if owners is None else "user", **planned)
        made = Silo(
            name,
            model=model,
            task=task,
            records=records,
            program=program,
            options=options,
            owners=owners,
            should_stop=should_stop,
        )
        return made, server.begin("job", factors(model))

    return make


def round_of(silo, state, streams, **more):
    """The next round's message."""
    calls = {"authorise": lambda steps: steps, "save": lambda data: None}
    return silo.round("job", server.start(state), streams=streams, **calls | more)
