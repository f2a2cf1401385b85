"""What is promised of every method, found by its name: from a request to an export that gives the same logits."""

from functools import partial

import numpy as np
import pytest
import torch

from dpcore.export import About
from dpcore.methods import get_trainer, load_export
from dpcore.models import build_model, load_tokenizer
from dpcore.run import Outcome
from dpcore.tasks import make_task
from dpcore.terms.facts import read_facts
from dpcore.terms.methods import get_method, method_names
from dpcore.terms.program import Program, of_users, scaled

from .conftest import LABELS, MAX_LENGTH, WORDS, takes_steps
from .test_train import Host

MORE = {
    "bitfit": [{"full_steps": 1}],
    "zo": [{"weights": "all"}],
    "lora": [{"r": 2, "target_modules": "all-linear"}],
    "distill": [{"teacher_trains": "full", "student_layers": [1], "temperature": 2.0}],
    "federated-lora": [{"rounds": 7, "factors": "both"}],
    "federated-lm": [
        {"chosen_by": "private", "rows": 9, "loss": "nce", "negatives": 5},
        {"rows": "all", "blocks": "all", "server": "fedavg"},
    ],
}
"""Options under which a method trains something else, or in more phases, than by default."""
WISHES = [(name, options) for name in method_names() for options in ({}, *MORE.get(name, []))]
CASES = [
    (name, wish, base)
    for name, wish in WISHES
    for base in ("bert", "gpt2-lm", "llama-lm")
    if (name, base) not in (("bitfit", "llama-lm"), ("federated-lm", "bert"))  # no biases; it writes
]
RECORDS = 24


class Case:
    """A method with some options on a model that was saved as public ones are."""

    def __init__(self, name, wish, folder, task):
        self.name, self.folder, self.task = name, folder, task
        self.method, self.trainer = get_method(name), get_trainer(name)
        self.options, self.facts = self.method.Options.model_validate(wish), read_facts(folder)
        self.labels = LABELS if task == "classification" else ()

    def attach(self, seed=1):
        base = build_model(self.task, self.folder, self.labels, seed=1)
        return self.trainer.attach(base, self.options.model_dump(mode="json"), task=self.task, seed=seed)

    def program(self, **request):
        if not takes_steps(self.method):
            request.pop("steps", None)
        asked = self.method.Request.model_validate(request)
        public = {"task": self.task, "declared_size": RECORDS, "epsilon": 3.0, "facts": self.facts}
        numbers = self.method.resolve(asked, self.options, **public)
        phases = self.method.phases(self.options, numbers, declared_size=RECORDS)
        return Program(
            method=self.name,
            options=self.options.model_dump(mode="json"),
            unit="user" if of_users(phases) else "record",
            max_length=MAX_LENGTH,
            phases=scaled(phases, 0.75),
        )

    @property
    def sizes(self):
        return {"labels": len(self.labels), "task": self.task}


@pytest.fixture
def make_case(base_folder, writer_folder):
    def make(name, wish, base):
        causal = base.endswith("-lm")
        case = Case(name, wish, writer_folder(base) if causal else base_folder, "text" if causal else "classification")
        case.method.check(case.options, case.facts, case.task)
        return case

    return make


@pytest.mark.parametrize("name", method_names())
def test_options_and_request_have_defaults_and_survive_json(name):
    method = get_method(name)
    for model in (method.Options, method.Request):
        for wish in ({}, *(MORE.get(name, []) if model is method.Options else [])):
            made = model.model_validate(wish)
            assert model.model_validate_json(made.model_dump_json()) == made
            assert model.model_validate(made.model_dump(mode="json")) == made
        assert all(field.description for field in model.model_fields.values() if field.default != "auto")


@pytest.mark.parametrize(("name", "wish", "base"), CASES)
def test_a_request_becomes_a_program(make_case, name, wish, base):
    """By default and as asked for, with the same noise relative to one another in all phases."""
    case = make_case(name, wish, base)
    for request in ({}, {"steps": 7, "batch_size": 3, "learning_rate": 0.5}):
        program = case.program(**request)
        assert Program.model_validate_json(program.model_dump_json()) == program
        assert all(phase.mechanism.noise_multiplier > 0 for phase in program.phases)
        assert len({phase.name for phase in program.phases}) == len(program.phases)
        assert {phase.trains for phase in program.phases} <= {*method_names()}
        if takes_steps(case.method):
            assert program.phases[-1].steps == request.get("steps", program.phases[-1].steps)
    with pytest.raises(ValueError, match="declared size"):
        case.program(batch_size=RECORDS + 1)


@pytest.mark.sampled(12)
@pytest.mark.parametrize(("name", "wish", "base"), CASES)
def test_what_trains_is_about_what_was_said_and_the_same_at_every_attempt(make_case, name, wish, base):
    case = make_case(name, wish, base)
    model, again = case.attach(), case.attach()
    trains = set()
    for phase in case.program().phases:
        case.trainer.begin(model, phase, {}, task=case.task)
        trains |= {n for n, p in model.named_parameters() if p.requires_grad}
    trained = sum(model.get_parameter(n).numel() for n in trains)
    assert 0.7 < case.method.trainable(case.options, case.facts, **case.sizes) / trained < 1.45
    assert case.method.memory(case.options, case.facts, max_length=MAX_LENGTH, **case.sizes) > 4 * case.facts.parameters
    both = [dict(m.named_parameters()) for m in (case.attach(), again)]
    assert {n: p.requires_grad for n, p in both[0].items()} == {n: p.requires_grad for n, p in both[1].items()}
    assert all(torch.equal(p, both[1][n]) for n, p in both[0].items())


LIGHT = [pytest.param(*case, marks=[] if case[-1] != "llama-lm" else pytest.mark.verify) for case in CASES]


@pytest.mark.sampled(8)
@pytest.mark.parametrize(("name", "wish", "base"), LIGHT)
def test_what_it_trained_leaves_and_gives_the_same_logits(make_case, tmp_path, name, wish, base):
    case = make_case(name, wish, base)
    tokenizer = load_tokenizer(case.folder)
    task = make_task(case.task, tokenizer, labels=case.labels, max_length=MAX_LENGTH)
    texts = [" ".join(WORDS[i : i + 1 + i % 9]) for i in range(RECORDS)]
    records = task.encode({"text": texts}, [i % len(LABELS) for i in range(RECORDS)])
    model, program = case.attach(), case.program(steps=2, batch_size=8, learning_rate=0.1)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    methods = {
        "begin": partial(case.trainer.begin, task=case.task),
        "learns": case.trainer.learns,
        "between": case.trainer.between,
        "owners": np.arange(RECORDS) if program.unit == "user" else None,
    }
    assert Host().run(model, task, records, program, **methods) == Outcome(program.steps, "finished")
    assert any(not torch.equal(before[n], p) for n, p in model.named_parameters())
    about = About("example/tiny", "0" * 64, name, case.task, case.labels, MAX_LENGTH)
    case.trainer.export(model, tmp_path / "export", about, tokenizer=tokenizer)
    loaded, read = load_export(tmp_path / "export", case.folder)
    assert read == about
    model.eval()
    untouched = case.attach().eval()
    for text in texts[:4]:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            now, trained, start = (
                m(input_ids=ids, attention_mask=torch.ones_like(ids)).logits for m in (loaded, model, untouched)
            )
        torch.testing.assert_close(now, trained, rtol=1e-4, atol=1e-5)
        assert (trained - start).abs().max() > 1e-3, "what was trained is in it"
