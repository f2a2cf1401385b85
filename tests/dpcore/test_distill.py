"""Distillation: exact gradients in both phases, a teacher that stays as it was released, and a student that leaves."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from dpcore.checkpoint import loads
from dpcore.engine.errors import MixedExamples
from dpcore.engine.per_example import PerExample
from dpcore.engine.rehearsal import require_exact
from dpcore.explicit_mask import explicit_masks
from dpcore.export import About
from dpcore.mechanism.clipping import ClippedSum
from dpcore.methods import full, get_trainer, load_export
from dpcore.methods.distill.learning import distilled
from dpcore.methods.layers import only_layers
from dpcore.methods.prune.masks import prunable, smallest
from dpcore.run import Outcome
from dpcore.tasks import make_task
from dpcore.terms.errors import FieldError
from dpcore.terms.facts import ModelFacts
from dpcore.terms.methods import get_method

from .conftest import LABELS, MAX_LENGTH, WORDS
from .moves import watch
from .test_methods import _row as row_of
from .test_run import Killed, Service
from .test_run import state as state_of
from .test_train import equal, make_phase, make_program, secret

RECORDS, LENGTH = 7, MAX_LENGTH
SHAPES = ("bert", "gpt2", "llama", "gpt2-lm", "llama-lm", "bert>roberta", "gpt2-lm>llama-lm")
"""Models; of two, the first teaches the second."""
TEMPERATURE, MIXING = 2.0, 0.6
TEACHER = make_phase(name="teacher", trains="lora", steps=3)
STUDENT = make_phase(name="student", trains="full", steps=4, noise_multiplier=0.7)
distill = get_trainer("distill")


def kind(name):
    return "text" if name.endswith("-lm") else "classification"


@pytest.fixture
def make_task_of(task, writer_tokenizer):
    """The task of a model by name, and records of 3 to 14 tokens."""

    def make(name, count=RECORDS):
        texts = [" ".join(WORDS[(3 * i + j) % 50] for j in range(1 + (5 * i) % 11)) for i in range(count)]
        if kind(name) == "classification":
            return task, task.encode({"text": texts}, [i % len(LABELS) for i in range(count)])
        writes = make_task("text", writer_tokenizer, max_length=LENGTH)
        return writes, writes.encode({"text": texts})

    return make


@pytest.fixture
def make_pair(make_base):
    """A student and its teacher, both with weights away from where they started."""

    def make(name="bert", *, dtype=torch.float64, awake=True, **options):
        chosen = {"temperature": TEMPERATURE, "mixing": MIXING, **options}
        teacher, _, student = name.partition(">")
        if student:
            chosen["student_model"] = student
            pair = distill.attach(make_base(student, layers=1), chosen, task=kind(name), seed=3)
            pair.train_teacher(make_base(teacher, layers=4))
        else:
            pair = distill.attach(make_base(name, layers=4), chosen, task=kind(name), seed=3)
        pair = pair.to(dtype)
        generator = torch.Generator().manual_seed(5)
        for p in pair.parameters():
            if p.requires_grad and awake:
                p.data += 0.2 * torch.randn(p.shape, generator=generator, dtype=dtype)
        return pair

    return make


def turn(pair, phase, task, name="bert"):
    """The task as the phase learns it, once the phase has begun."""
    learnt = distill.learns(pair, phase, task)
    distill.begin(pair, phase, {}, task=kind(name))
    return learnt


def written_out(pair, phase, records, i, name, mixing=MIXING):
    """The loss of one record, alone and without padding, as the paper says it."""
    start, end = records.offsets[i], records.offsets[i + 1]
    ids = torch.from_numpy(records.tokens[start:end]).long().unsqueeze(0)
    answers = [
        model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits for model in (pair.student, pair.teacher)
    ]
    if name.endswith("-lm"):
        answers, targets = [scores[0, :-1] for scores in answers], ids[0, 1:]
    else:
        targets = torch.tensor([records.labels[i]])
    student, teacher = answers
    if phase is TEACHER:
        return F.cross_entropy(teacher, targets)
    own = F.cross_entropy(student, targets)
    soft = [torch.softmax(scores / TEMPERATURE, 1) for scores in (teacher.detach(), student)]
    far = (soft[0] * (soft[0] / soft[1]).log()).sum(1).mean()
    return (1 - mixing) * own + mixing * TEMPERATURE**2 * far


@pytest.mark.sampled(4)
@pytest.mark.parametrize("phase", [TEACHER, STUDENT], ids=lambda phase: phase.name)
@pytest.mark.parametrize("name", SHAPES)
def test_each_record_s_gradient_is_that_of_the_loss_written_out(make_pair, make_task_of, name, phase):
    """Together, padded and clipped, against one after the other by plain autograd; nobody moves a sum by more than C."""
    pair, (task, records) = make_pair(name), make_task_of(name)
    learnt = turn(pair, phase, task, name)
    with explicit_masks():
        engine = PerExample(pair)
        own = {n for n, p in pair.named_parameters() if p.requires_grad}
        assert engine.parameters.keys() == own
        assert {n.split(".")[0] for n in own} == {phase.name}

        def losses(indices):
            return learnt.losses(pair, records, np.asarray(indices), LENGTH)

        require_exact(engine, pair, lambda i: losses(i), RECORDS)
        together = engine.gradients(lambda: losses(np.arange(RECORDS)), RECORDS)
        rows = torch.stack([row_of(engine, together, i) for i in range(RECORDS)])
        taught = bool(make_task_of(name)[1].lengths.min() > 1)
        for i in range(RECORDS):
            loss = written_out(pair, phase, records, i, name)
            if loss.isnan():  # one token teaches a language model nothing
                assert not taught
                assert not rows[i].any()
                continue
            alone = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(engine.parameters.values()))])
            torch.testing.assert_close(losses([i])[0], loss)
            assert (rows[i] - alone).norm() <= 1e-9 * alone.norm()
        assert all(p.grad is None for p in pair.parameters())
        sums = {}
        for left in (None, 0, 3, 6):
            who = np.array([i for i in range(RECORDS) if i != left])
            total = ClippedSum.zero(engine.width, clip_norm=0.5, clipping="flat", expected_batch=1, device="cpu")
            total.add(engine.gradients(lambda who=who: losses(who), len(who)))
            sums[left] = total.value.clone()
        moves = [float((sums[None] - sums[left]).norm()) for left in (0, 3, 6)]
        assert max(moves) <= 0.5 * (1 + 1e-9)
        assert max(moves) > 0.4


@pytest.mark.parametrize("mixing", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_loss_is_the_formula_s(temperature, mixing):
    generator = torch.Generator().manual_seed(1)
    logits, taught = (3 * torch.randn(5, 9, generator=generator, dtype=torch.float64) for _ in range(2))
    targets, counted = torch.arange(5), torch.tensor([True, True, False, True, True])
    taught[2] = torch.nan  # what does not count is left out, whatever stands there
    logits.requires_grad_()

    def formula(rows):
        own = F.cross_entropy(logits[rows], targets[rows], reduction="none")
        soft = F.log_softmax(logits[rows] / temperature, 1), F.log_softmax(taught[rows] / temperature, 1)
        far = F.kl_div(*soft, log_target=True, reduction="none").sum(1)
        return (1 - mixing) * own + mixing * temperature**2 * far

    losses = distilled(logits, taught, targets, counted, temperature=temperature, mixing=mixing)
    torch.testing.assert_close(losses[counted], formula(counted))
    weights = torch.arange(1.0, 6.0, dtype=torch.float64)
    (found,) = torch.autograd.grad((weights * losses).sum(), logits)
    (wanted,) = torch.autograd.grad((weights[counted] * formula(counted)).sum(), logits)
    torch.testing.assert_close(found, wanted)
    assert losses[2] == 0
    assert not found[2].any()


def program(*phases, **options):
    return make_program(method="distill", options=options, phases=phases or (TEACHER, STUDENT))


def go(service, pair, task, records, wanted, **more):
    more = {"streams": secret(), **more}
    begin = partial(distill.begin, task="classification")
    service.outcome = service.train(
        pair, task, records, wanted, begin=begin, learns=distill.learns, between=distill.between, **more
    )
    return pair


@pytest.mark.parametrize("unit", [pytest.param("record", marks=pytest.mark.verify), "user"])
@pytest.mark.parametrize("mixing", [pytest.param(0.3, marks=pytest.mark.verify), 0.9])
def test_a_unit_moves_each_step_s_sum_by_its_own_clipped_gradient_in_both_phases(
    make_pair, make_records, task, monkeypatch, unit, mixing
):
    pair = make_pair(teacher_trains="full", mixing=mixing, student_sparsity=0.5)
    records, clip_norm = make_records(18), 0.5
    turns = Counter()

    def loss(model, i):
        phase = TEACHER if model.current is model.teacher else STUDENT
        turns[phase.name] += 1
        return written_out(model, phase, records, i, "bert", mixing)

    changes = {"clip_norm": clip_norm, "clipping": "flat", "expected_batch": 3, "sample_rate": 0.4}
    both = [make_phase(name=n, trains="full", steps=2, **changes) for n in ("teacher", "student")]
    moved = watch(monkeypatch, clip_norm, loss)
    owners = np.arange(18) % 6 if unit == "user" else None
    go(Service(), pair, task, records, program(*both).model_copy(update={"unit": unit}), owners=owners)
    assert min(turns["teacher"], turns["student"]) > 2
    assert max(moved) == pytest.approx(1), "some are clipped"


@pytest.mark.parametrize("name", ["bert", "llama-lm"])
def test_a_teacher_s_answer_to_a_record_is_that_record_s_alone(make_pair, make_task_of, name):
    """Whatever stands beside it, and however much of the loss it is."""
    pair, (task, records) = make_pair(name, mixing=0.9), make_task_of(name)
    learnt = turn(pair, STUDENT, task, name)
    seen = []
    pair.register_forward_hook(lambda _, args, out: seen.append(out.taught))
    with explicit_masks():
        for who in (np.arange(RECORDS), np.array([4]), np.array([2, 4, 6]), np.array([4, 4])):
            learnt.losses(pair, records, who, LENGTH)
        learnt.losses(pair, records, np.array([4]), int(records.lengths[4]))
    length = int(records.lengths[4]) - 1  # what follows the last token is nobody's to say
    own = [scores[place] for scores, place in zip(seen, (4, 0, 1, 1, 0), strict=True)]
    own = own if name == "bert" else [scores[:length] for scores in own]
    for other in own[1:]:
        torch.testing.assert_close(other, own[0], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(seen[0][4], seen[0][2])


def test_the_teacher_stays_as_its_phase_left_it(make_pair, make_records, task):
    pair, service = make_pair(dtype=torch.float32, awake=False), Service()
    before = state_of(pair)
    go(service, pair, task, make_records(40), program())
    assert service.outcome == Outcome(7, "finished")
    released, after = loads(service.saved[2]).weights, state_of(pair)
    assert {name.split(".")[0] for name in released} == {"teacher"}
    for name, value in after.items():
        if name.startswith("teacher"):
            assert torch.equal(value, released.get(name, before[name])), name
    moved = Counter(name.split(".")[0] for name in after if not torch.equal(before[name], after[name]))
    assert moved["teacher"] == len(released)
    assert moved["student"] == sum(1 for n, _ in pair.student.named_parameters())
    assert not any(p.requires_grad for p in pair.teacher.parameters())


def test_with_mixing_0_the_student_is_trained_as_full_trains_it(make_base, make_pair, make_records, task):
    """To the bit, with the same draws and noise; with any other mixing it is not."""
    records = make_records(40)
    student = full.attach(only_layers(make_base(layers=4), [0, 3]), {}, task="classification", seed=0)
    alone = Service()
    alone.train(student, task, records, make_program(method="full", phases=(STUDENT,)), streams=secret())
    for mixing in (0.0, 0.5):
        pair = make_pair(dtype=torch.float32, awake=False, teacher="public", mixing=mixing)
        go(Service(), pair, task, records, program(STUDENT))
        assert equal(state_of(student), state_of(pair.student)) == (mixing == 0)
        assert (distill.learns(pair, STUDENT, task) is task) == (mixing == 0), "no teacher is asked for nothing"


ENDS = [("authorise", 2), ("save", 2), ("authorise", 4), ("save", 4), ("authorise", 6), ("save", 7)]
"""The middle of the teacher's phase, its end, the student's first step, its middle and its end."""


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "dies",
    [end if end in ENDS[2:4] else pytest.param(end, marks=pytest.mark.verify) for end in ENDS],
    ids=lambda dies: "-".join(map(str, dies)),
)
def test_a_run_that_was_killed_goes_on_to_the_same_end(make_pair, make_records, task, dies):
    goes_on("bert", make_pair, make_records, task, dies)


@pytest.mark.parametrize(
    "dies", [ENDS[3], *(pytest.param(end, marks=pytest.mark.verify) for end in (ENDS[0], ENDS[4]))]
)
def test_so_does_one_whose_student_is_another_model(make_pair, make_records, task, dies):
    pair = goes_on("bert>roberta", make_pair, make_records, task, dies)
    assert type(pair.student).__name__ == "RobertaForSequenceClassification"
    assert type(pair.teacher).__name__ == "BertForSequenceClassification"


def goes_on(name, make_pair, make_records, task, dies):
    whole, broken, last, records = Service(), Service(dies=dies), Service(), make_records(40)
    make = partial(make_pair, name, dtype=torch.float32, awake=False, teacher_trains="full")
    wanted = program(TEACHER.model_copy(update={"trains": "full"}), STUDENT)
    first = go(whole, make(), task, records, wanted)
    with pytest.raises(Killed):
        go(broken, make(), task, records, wanted)
    second = go(last, make(), task, records, wanted, checkpoint=broken.saved[-1])
    assert last.outcome == Outcome(7, "finished")
    assert equal(state_of(first), state_of(second))
    return second


def test_a_pruned_student_has_its_public_zeros_to_the_end_and_over_a_kill(make_base, make_records, task, tmp_path):
    """In weights, moments, averages and what leaves, which its loader unpacks; the teacher has none."""
    options, records = {"student_sparsity": 0.6, "student_layers": [0, 2], "teacher_trains": "full"}, make_records(40)

    def make():
        return distill.attach(make_base(layers=4), options, task="classification", seed=3)

    public = prunable(only_layers(make_base(layers=4), [0, 2]))
    masks = smallest(public, 0.6, matrix_by_matrix=False)
    pruned = prunable(make().student)
    assert all(torch.equal(pruned[name], public[name].masked_fill(mask, 0)) for name, mask in masks.items())
    wanted = program(*(p.model_copy(update={"trains": "full", "weight_averaging": 0.5}) for p in (TEACHER, STUDENT)))
    whole, broken, last = Service(), Service(dies=("authorise", 6)), Service()
    first = go(whole, make(), task, records, wanted)
    with pytest.raises(Killed):
        go(broken, make(), task, records, wanted)
    second = go(last, make(), task, records, wanted, checkpoint=broken.saved[-1])
    assert equal(state_of(first), state_of(second))
    for data in whole.saved[TEACHER.steps :]:
        saved = loads(data)
        for name, mask in masks.items():
            own = f"student.{name}"
            assert torch.equal(saved.weights[own] == 0, mask)
            for value in (saved.averages[own], *saved.moments[own].values()):
                assert not value.shape or not value[mask].any()
    for name, weight in prunable(first.student).items():
        assert torch.equal(weight == 0, masks[name])
        assert not torch.equal(weight, public[name].masked_fill(masks[name], 0))
    assert not any((p == 0).any() for p in prunable(first.teacher).values())
    distill.export(first, tmp_path, About("tiny", "0" * 64, "distill", "classification", LABELS, MAX_LENGTH))
    assert not (tmp_path / "config.json").exists()
    loaded = load_export(tmp_path, tmp_path)[0].eval()
    assert equal(first.student.state_dict(), loaded.state_dict())


@pytest.mark.parametrize("name", ["gpt2-lm", "llama-lm"])
def test_a_language_model_teaches_its_own_smaller_self(make_base, make_pair, make_task_of, name):
    """Public and free: one phase, in which it stays as it is."""
    pair, (task, records) = make_pair(name, dtype=torch.float32, awake=False, teacher="public"), make_task_of(name, 40)
    before, service = state_of(pair), Service()
    go(service, pair, task, records, program(STUDENT))
    assert service.outcome == Outcome(4, "finished")
    assert {name.split(".")[0] for name in loads(service.saved[-1]).weights} == {"student"}
    assert equal(make_base(name, layers=4).state_dict(), pair.teacher.state_dict())
    assert not any(torch.equal(before[f"student.{n}"], p) for n, p in pair.student.named_parameters())


class Mixing(torch.nn.Module):
    """A teacher that answers each record with all others' mean."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config = model, model.config

    def get_input_embeddings(self):
        return self.model.get_input_embeddings()

    def get_output_embeddings(self):
        return None

    def forward(self, **inputs):
        output = self.model(**inputs)
        output.logits = output.logits + output.logits.mean(0)
        return output


@pytest.mark.parametrize("mixing", [0.05, 0.9])
def test_a_teacher_in_whom_records_meet_costs_nothing(make_base, make_pair, make_records, task, mixing):
    """Its answer to a record would depend on the others: found out in the rehearsal."""
    pair, service = make_pair(dtype=torch.float32, teacher="public", teacher_model="m", mixing=mixing), Service()
    pair.learn_from(Mixing(make_base(layers=4)))
    with pytest.raises(MixedExamples, match="teacher"):
        go(service, pair, task, make_records(40), program(STUDENT))
    assert service.events == []


def test_a_teacher_from_elsewhere_is_taken_in_the_student_s_order(make_base, make_pair, make_records, task):
    given = make_base(layers=4)
    order = [2, 0, 1]
    pair = make_pair(dtype=torch.float32, teacher="public", teacher_model="m")
    with pytest.raises(ValueError, match="none was handed over"):
        turn(pair, STUDENT, task)
    pair.learn_from(given, order)
    records = make_records(RECORDS)
    seen = []
    learnt = turn(pair, STUDENT, task)
    pair.register_forward_hook(lambda _, args, out: seen.append(out.taught))
    learnt.losses(pair, records, np.arange(RECORDS), LENGTH)
    plain = []
    given.register_forward_hook(lambda _, args, out: plain.append(out.logits))
    task.losses(given, records, np.arange(RECORDS), LENGTH)
    assert torch.equal(seen[0], plain[-1][:, order])


def test_a_teacher_that_does_not_go_with_its_student_is_refused(make_base, make_pair):
    pair = make_pair(dtype=torch.float32, teacher="public", teacher_model="m")
    with pytest.raises(ValueError, match=r"the student, of [\d,]+ weights, is larger than its teacher"):
        pair.learn_from(make_base(layers=1))
    other = make_base(layers=4)
    other.config.num_labels = 5
    with pytest.raises(ValueError, match="scores for 5 words or labels, the student for 3"):
        pair.learn_from(other)
    with pytest.raises(ValueError, match=r"the student, of [\d,]+ weights, is larger than its teacher"):
        distill.attach(
            make_base("roberta", layers=4), {"student_model": "m"}, task="classification", seed=0
        ).train_teacher(make_base(layers=1))
    padded = make_base(layers=4)
    padded.config.pad_token_id = 9
    with pytest.raises(ValueError, match="another padding token"):
        pair.learn_from(padded)


@pytest.mark.parametrize("name", ["bert", "gpt2-lm", "llama-lm", "gpt2-lm>llama-lm"])
def test_the_student_leaves_alone_and_stock_transformers_reads_it(make_pair, tmp_path, name):
    options = {} if ">" in name else {"student_layers": [0, 2, 3]}
    pair = make_pair(name, dtype=torch.float32, **options)
    labels = LABELS if kind(name) == "classification" else ()
    distill.export(pair, tmp_path, About("example/tiny", "0" * 64, "distill", kind(name), labels, MAX_LENGTH))
    auto = AutoModelForSequenceClassification if labels else AutoModelForCausalLM
    read = auto.from_pretrained(tmp_path).eval()
    assert read.config.num_hidden_layers == (1 if ">" in name else 3)
    assert type(read) is type(pair.student)
    ids = torch.tensor([[3, 4, 5, 6]])
    torch.testing.assert_close(read(input_ids=ids).logits, pair.student(input_ids=ids).logits)
    assert {n for n, _ in read.named_parameters()} == {n for n, _ in pair.student.named_parameters()}


SHAPE = {"hidden_size": 64, "intermediate_size": 128, "layers": 6, "heads": 2, "vocab_size": 100, "max_positions": 64}
FACTS = ModelFacts(model_type="bert", **SHAPE)


@pytest.mark.parametrize(
    ("options", "field", "words"),
    [
        ({"student_layers": 0}, "student_layers", "0 of the model's 6 layers"),
        ({"student_layers": 7}, "student_layers", "7 of the model's 6 layers"),
        ({"student_layers": [0, 6]}, "student_layers", "no layer 6"),
        ({"student_layers": [2, 2]}, "student_layers", "each layer once"),
        ({"mixing": 0.0}, "mixing", "nothing is learnt from the teacher"),
        ({"teacher": "public"}, "teacher_model", "name a public classifier"),
        ({"teacher": "job"}, "teacher_job", "teacher_job is missing"),
        ({"teacher": "job", "teacher_job": "a", "teacher_model": "m"}, "teacher_model", "teacher: public"),
        ({"teacher_job": "ftjob-a"}, "teacher_job", "teacher: job"),
        ({"teacher": "public", "teacher_model": "m", "teacher_trains": "full"}, "teacher_trains", "teacher: train"),
    ],
)
def test_options_that_do_not_go_together_are_refused_by_field(options, field, words):
    spec = get_method("distill")
    with pytest.raises(FieldError, match=words) as caught:
        spec.check(spec.Options.model_validate(options), FACTS, "classification")
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("student", "options", "field", "words"),
    [
        ({"layers": 7}, {}, "student_model", "larger than its teacher"),
        ({"vocab_size": 99}, {}, "student_model", "scores for 99 words, and the teacher for 100"),
        ({"causal_lm": False}, {}, "student_model", "cannot be trained for the task text"),
        ({"layers": 4}, {"student_layers": 5}, "student_layers", "5 of the model's 4 layers"),
        ({}, {"teacher": "public"}, "student_model", "teacher: train"),
    ],
)
def test_another_model_that_cannot_be_the_student_is_refused_by_field(student, options, field, words):
    spec = get_method("distill")
    facts = FACTS.model_copy(update={"causal_lm": True})
    facts = facts.model_copy(update={"student": facts.model_copy(update=student)})
    with pytest.raises(FieldError, match=words) as caught:
        spec.check(spec.Options(student_model="m", **options), facts, "text")
    assert caught.value.field == field


def test_another_model_is_a_student_with_all_its_layers_unless_some_are_named():
    spec, small = get_method("distill"), FACTS.model_copy(update={"hidden_size": 32, "layers": 5})
    both = FACTS.model_copy(update={"student": small})
    assert spec.Options(student_model="m").student(both).layers == 5
    assert spec.Options(student_model="m", student_layers="half").student(both).layers == 3
    assert spec.Options().student(FACTS).layers == spec.Options(student_layers="half").student(FACTS).layers == 3
    spec.check(spec.Options(student_model="m"), both, "classification")
    sizes = {"labels": 2, "task": "classification"}
    train = [spec.trainable(spec.Options(student_model="m"), facts, **sizes) for facts in (FACTS, both)]
    alone = [get_method("full").trainable(get_method("full").Options(), facts, **sizes) for facts in (FACTS, small)]
    assert train[0] - train[1] == alone[0] - alone[1]
    needs = [
        spec.memory(spec.Options(student_model="m"), facts, max_length=64, **sizes) for facts in (FACTS, both, small)
    ]
    assert needs[0] > needs[1] > needs[2]


@pytest.mark.parametrize(
    "option", [{"student_layers": "most"}, {"student_layers": True}, {"temperature": 0}, {"mixing": 0.95}]
)
def test_options_have_bounds(option):
    with pytest.raises(ValueError, match=r"\d validation error"):
        get_method("distill").Options.model_validate(option)


def test_a_teacher_that_is_not_trained_has_no_numbers_and_no_phase():
    spec = get_method("distill")
    options = spec.Options(teacher="public", teacher_model="m")
    public = {"task": "classification", "declared_size": 1000, "epsilon": 4.0, "facts": FACTS}
    for field in ("teacher_steps", "teacher_learning_rate"):
        with pytest.raises(FieldError, match="a teacher that this job trains") as caught:
            spec.resolve(spec.Request(**{field: 1}), options, **public)
        assert caught.value.field == f"hyperparameters.{field}"
    numbers = spec.resolve(spec.Request(), options, **public)
    assert [phase.name for phase in spec.phases(options, numbers, declared_size=1000)] == ["student"]
    both = spec.Options()
    numbers = spec.resolve(spec.Request(steps=9, teacher_steps=5), both, **public)
    assert [(p.name, p.trains, p.steps) for p in spec.phases(both, numbers, declared_size=1000)] == [
        ("teacher", "lora", 5),
        ("student", "full", 9),
    ]


def test_memory_is_of_both_models_in_the_phase_that_needs_most():
    spec = get_method("distill")
    sizes = {"max_length": 64, "labels": 2, "task": "classification"}
    student = get_method("full").memory(get_method("full").Options(), spec.Options().student(FACTS), **sizes)
    assert spec.memory(spec.Options(), FACTS, **sizes) > student + 4 * FACTS.parameters
    teacher = get_method("full").memory(get_method("full").Options(), FACTS, **sizes)
    assert spec.memory(spec.Options(teacher_trains="full", student_layers=1), FACTS, **sizes) > teacher
