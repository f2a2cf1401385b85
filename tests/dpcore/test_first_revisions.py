"""What the first revisions left behind, in which a job was one plan: first/ holds what they wrote."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dpcore.checkpoint import FIRST, loads, read_step
from dpcore.run import Outcome
from dpcore.terms.facts import ModelFacts
from dpcore.terms.methods import get_method
from dpcore.terms.program import Program, scaled
from dpcore.terms.speed import Speed

from .test_rehearsal import LONGEST, RECORDS, WIDTH, Padded, Squares
from .test_train import Host, make_program, secret

FOLDER = Path(__file__).parent / "first"
PLANS = json.loads((FOLDER / "plans.json").read_text())
"""Requests of all kinds, and the plan that the first revisions made of each at noise 1.234567 and seed 11."""
FACTS = ModelFacts(
    model_type="bert", hidden_size=384, intermediate_size=1536, layers=6, heads=12, vocab_size=30522, max_positions=512
)


class Small(nn.Module):
    """The model of the checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, 2)
        with torch.no_grad():
            self.inner.weight.copy_(torch.linspace(-1, 1, 2 * WIDTH).view(2, WIDTH))
            self.inner.bias.fill_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.inner(x)).square().sum((1, 2))


@pytest.mark.parametrize("case", PLANS, ids=lambda case: f"{case['method']}-{case['task']}")
def test_a_plan_is_the_program_that_the_same_request_gives_now(case):
    method, plan = get_method(case["method"]), case["plan"]
    options, request = method.Options.model_validate(case["options"]), method.Request.model_validate(case["request"])
    numbers = method.resolve(request, options, task=case["task"], declared_size=500, epsilon=3.0, facts=FACTS)
    program = Program(
        method=case["method"],
        options=options.model_dump(mode="json"),
        unit=plan["unit"],
        max_length=64,
        seed=11,
        phases=scaled(method.phases(options, numbers, declared_size=500), 1.234567),
    )
    assert Program.model_validate(plan) == Program.model_validate_json(json.dumps(plan)) == program
    with pytest.raises(ValueError, match="epochs"):
        Program.model_validate(plan | {"epochs": 3})


def test_a_checkpoint_is_resumed():
    """Three of eight steps, with an adapted clip norm and an average; what goes on is what had never been broken off.
    The bits of it belong to the machine that wrote the file, so they are held to a hair's breadth."""
    data = (FOLDER / "checkpoint.safetensors").read_bytes()
    assert FIRST.encode() in data
    program = make_program(
        max_length=LONGEST,
        options={"r": 4},
        seed=3,
        clip_norm=2.0,
        clipping="adaptive",
        weight_averaging=0.5,
    )
    saved = loads(data)
    assert (saved.phase, saved.step, saved.before, saved.paid, saved.kept, read_step(data)) == (0, 3, 0, False, {}, 3)
    assert saved.program == program
    whole, resumed = Small(), Small()
    more = {"speed": Speed(tokens=10_000)}
    first, again = Host(), Host()
    first.run(whole, Squares(), Padded(RECORDS, LONGEST), program, streams=secret(), **more)
    third = loads(first.saved[2])
    for name, weight in saved.weights.items():
        torch.testing.assert_close(third.weights[name], weight, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(third.averages[name], saved.averages[name], rtol=1e-5, atol=1e-7)
    assert third.clip_norm == pytest.approx(saved.clip_norm, rel=1e-6)
    out = again.run(resumed, Squares(), Padded(RECORDS, LONGEST), program, checkpoint=data, streams=secret(), **more)
    assert out == Outcome(8, "finished")
    assert sum(again.asked) == 5
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=1e-5, atol=1e-7)
    assert read_step(again.saved[-1]) == 8
