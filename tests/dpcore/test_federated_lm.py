"""A language model over users: the pre-noise sum moves by at most C when a user leaves, whatever the options; nothing
outside the subset moves by a bit; the subset owes nothing to a user but for counts that were noised; and a run that was
broken off, also between its phases, goes on to the same end."""

from functools import partial

import numpy as np
import pytest
import torch

from dpcore import embedding_rows
from dpcore.checkpoint import loads
from dpcore.engine.errors import NotTrainable, OutsideTable
from dpcore.estimators import Setting
from dpcore.estimators import make as make_estimator
from dpcore.methods import get_trainer
from dpcore.models import build_model, load_tokenizer
from dpcore.run import Outcome
from dpcore.tasks.text import Texts
from dpcore.terms.errors import FieldError
from dpcore.terms.facts import read_facts
from dpcore.terms.methods import federated_lm as terms
from dpcore.terms.program import Program, scaled
from dpcore.terms.speed import Speed
from dpcore.word_counts import WORD_COUNTS, probabilities, write_word_counts

from .conftest import MAX_LENGTH, WORDS
from .test_train import Host, secret

USERS = 6
OWNERS = np.array([0, 1, 2, 3, 4, 5] * 4)
# User 0 owns long records, user 5 says one word again and again.
TEXTS = [
    " ".join(WORDS[i : i + 9]) if owner == 0 else "w7" if owner == 5 else " ".join(WORDS[3 * i % 50 : 3 * i % 50 + 4])
    for i, owner in enumerate(OWNERS)
]
OPTIONS = [
    {},
    {"rows": 12, "chosen_by": "seed", "blocks": "none"},
    {"rows": "all", "blocks": "all"},
    {"rows": 9, "loss": "nce", "negatives": 7},
    {"rows": 9, "chosen_by": "private", "loss": "nce", "negatives": 7, "local_steps": 3, "local_batch": 2},
    {"server": "fedavg", "most_tokens": 13, "loss": "ranking", "negatives": 5},
]
TRAINER = get_trainer("federated-lm")


@pytest.fixture(params=["gpt2-lm", "llama-lm"])
def world(request, writer_folder):
    return World(writer_folder(request.param))


class World:
    """A model that was saved, its task and records."""

    def __init__(self, folder):
        self.folder, self.facts = folder, read_facts(folder)
        self.task = Texts(load_tokenizer(folder), MAX_LENGTH)
        self.records = self.task.encode({"text": TEXTS})

    def attach(self, options, seed=3):
        wanted = terms.Options.model_validate(options)
        base = build_model("text", self.folder, (), seed=1)
        return TRAINER.attach(base, wanted.model_dump(mode="json"), task="text", seed=seed)

    def program(self, options, steps=4, noise=0.5, **asked):
        wanted = terms.Options.model_validate(options)
        request = terms.Request(steps=steps, batch_size=3, learning_rate=0.5, **asked)
        numbers = terms.resolve(request, wanted, task="text", declared_size=USERS, epsilon=1.0, facts=self.facts)
        phases = scaled(terms.phases(wanted, numbers, declared_size=USERS), noise)
        return Program(
            method="federated-lm",
            options=wanted.model_dump(mode="json"),
            unit="user",
            max_length=MAX_LENGTH,
            phases=phases,
        )

    def estimator(self, model, program, phase):
        one = program.phases[phase]
        TRAINER.begin(model, one, {}, task="text")
        task = TRAINER.learns(model, one, self.task)
        made = make_estimator(Setting(model, task, self.records, OWNERS, "user", one, Speed(), lambda: False))
        made.rehearse()
        return made

    def run(self, host, model, program, **more):
        return host.run(
            model,
            self.task,
            self.records,
            program,
            owners=OWNERS,
            begin=partial(TRAINER.begin, task="text"),
            learns=TRAINER.learns,
            between=TRAINER.between,
            **more,
        )


@pytest.mark.sampled(4)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_user_that_leaves_moves_the_sum_by_at_most_the_bound(world, options):
    program = world.program(options)
    for index, phase in enumerate(program.phases):
        estimator = world.estimator(world.attach(options), program, index)
        everybody = np.arange(USERS)
        whole = estimator.sum(everybody, phase.clip_norm, lambda: secret().at("directions", 0))
        longest = 0.0
        for user in everybody:
            rest = estimator.sum(np.delete(everybody, user), phase.clip_norm, lambda: secret().at("directions", 0))
            alone = estimator.sum(everybody[user : user + 1], phase.clip_norm, lambda: secret().at("directions", 0))
            moved = whole.value - rest.value
            torch.testing.assert_close(moved, alone.value, rtol=1e-9, atol=1e-11)
            longest = max(longest, float(moved.norm()))
        assert 0.01 * phase.clip_norm < longest <= phase.clip_norm * (1 + 1e-9)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_nothing_outside_the_subset_moves_by_a_bit(world, options):
    model, program = world.attach(options), world.program(options)
    tables = [
        m.weight.detach().clone()
        for m in (model.base.get_input_embeddings().table, model.base.get_output_embeddings().head)
    ]
    others = {n: p.detach().clone() for n, p in model.named_parameters()}
    assert world.run(Host(), model, program) == Outcome(program.steps, "finished")
    rows, head = model.base.get_input_embeddings(), model.base.get_output_embeddings()
    chosen = head.get_buffer("chosen").numpy()
    assert len(chosen) == model.options.rows_of(world.facts.vocab_size)
    # Noise falls on every row of the subset, also on those that no user's words touch.
    assert bool((rows.change != 0).any(1).all())
    trains = {n for n, p in model.named_parameters() if p.requires_grad}
    assert all(torch.equal(p, others[n]) for n, p in model.named_parameters() if n not in trains | {"word_counts"})
    if model.inner is not model.base:
        model.inner = model.inner.merge_and_unload()
    embedding_rows.merge(model.base)
    outside = np.setdiff1d(np.arange(world.facts.vocab_size), chosen)
    for before, table in zip(tables, (rows.table, head.head), strict=True):
        assert torch.equal(table.weight[outside], before[outside])
        assert bool((table.weight[chosen] != before[chosen]).any(1).all())


def test_the_subset_is_the_same_in_worlds_that_differ_in_a_user_but_for_noised_counts(world):
    """By frequency and seed it is there before any record is; privately it follows from the released counts alone."""
    for options in ({"rows": 9}, {"rows": 9, "chosen_by": "seed"}):
        first, second = (world.attach(options).base.get_output_embeddings().get_buffer("chosen") for _ in range(2))
        assert torch.equal(first, second)
    assert not torch.equal(first, world.attach(options, seed=4).base.get_output_embeddings().get_buffer("chosen"))
    options = {"rows": 5, "chosen_by": "private"}
    model, program = world.attach(options), world.program(options, noise=1e-4)
    world.run(Host(), model, program, streams=secret())
    counts, exact = model.word_counts.detach().numpy(), np.zeros(world.facts.vocab_size)
    for user in range(USERS):
        own = np.concatenate(
            [
                world.records.tokens[world.records.offsets[i] : world.records.offsets[i + 1]]
                for i in np.flatnonzero(np.equal(OWNERS, user))
            ]
        )
        found = np.bincount(own, minlength=len(exact)).astype(float)
        exact += found / (np.linalg.norm(found) + 0.01)
    assert np.abs(counts - exact).max() < 0.05  # the noise is 0.002
    chosen = model.base.get_output_embeddings().get_buffer("chosen").numpy()
    assert chosen.tolist() == sorted(np.argsort(-counts, kind="stable")[:5].tolist())
    loud = world.attach(options)
    world.run(Host(), loud, world.program(options, noise=5.0), streams=secret())
    assert float((loud.word_counts.detach() - torch.from_numpy(exact)).std()) > 30  # 20 times the rounds' 5


@pytest.mark.sampled(2)
@pytest.mark.parametrize("grants", [[1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1, 0]], ids=["between", "first", "later"])
def test_a_run_that_was_broken_off_goes_on_to_the_same_end(world, grants):
    """Also between the counts and the rounds: the rows that were chosen are chosen again."""
    options = {"rows": 5, "chosen_by": "private", "loss": "nce", "negatives": 7}
    program, models = world.program(options), [world.attach(options) for _ in range(3)]
    assert world.run(Host(), models[0], program, streams=secret()) == Outcome(5, "finished")
    broken = Host(grants=[*grants])
    world.run(broken, models[1], program, streams=secret())
    world.run(Host(), models[2], program, streams=secret(), checkpoint=broken.saved[-1])
    for (name, p), q in zip(models[0].named_parameters(), models[2].parameters(), strict=True):
        assert torch.equal(p, q), name
    chosen = [m.base.get_output_embeddings().get_buffer("chosen").tolist() for m in (models[0], models[2])]
    assert chosen[0] == chosen[1] != world.attach(options).base.get_output_embeddings().get_buffer("chosen").tolist()


def test_a_run_that_was_stopped_in_its_first_round_trains_the_rows_that_were_chosen(world):
    """Its checkpoint is of the rounds, before any of them."""
    options = {"rows": 5, "chosen_by": "private"}
    program, model = world.program(options, noise=0.01), world.attach(options)
    host = Host(stop_at_call=USERS + 4)  # twice and once a user while words are counted; then before the first round
    assert world.run(host, model, program).ended == "stopped"
    saved = loads(host.saved[-1])
    assert (saved.phase, saved.step) == (1, 0)
    chosen = model.base.get_output_embeddings().get_buffer("chosen").tolist()
    again = world.attach(options)
    world.run(Host(grants=[0]), again, program, checkpoint=host.saved[-1])
    assert again.base.get_output_embeddings().get_buffer("chosen").tolist() == chosen != list(range(5))


def test_every_user_of_a_round_meets_words_of_its_own_whoever_else_is_drawn(world):
    program, model = world.program({"loss": "nce", "negatives": 7}), world.attach({"loss": "nce", "negatives": 7})
    estimator = world.estimator(model, program, 0)
    drawn, nce = [], estimator._setting.task._nce
    real = nce._drawn
    nce._drawn = lambda: drawn.append(real()) or drawn[-1]
    for number, users in ((0, [1, 2]), (0, [0, 2, 5]), (1, [1, 2])):
        estimator.sum(np.array(users), 0.5, lambda n=number: secret(b"%d" % n).at("directions", 0))
    steps = program.phases[0].estimator.local_steps
    rounds = [[d.tolist() for d in drawn[i : i + steps]] for i in range(0, len(drawn), steps)]
    assert len(rounds) == 7
    assert rounds[1] == rounds[3], "user 2, among others"
    assert len({str(words) for words in rounds}) == 6, "other users, and another round"
    assert rounds[0][0] != rounds[0][1]


@pytest.mark.parametrize(
    ("options", "field", "words"),
    [
        ({"rows": 10**6}, "rows", "the vocabulary has"),
        ({"loss": "nce", "negatives": 10**6}, "negatives", "cannot be drawn"),
        ({"negatives": 3}, "negatives", "means nothing with loss: softmax"),
        ({"rows": "all", "chosen_by": "private"}, "chosen_by", "means nothing with rows: all"),
        ({"blocks": "none", "r": 4}, "r", "means nothing with blocks: none"),
        ({"target_modules": "nobody"}, "target_modules", "there are"),
    ],
)
def test_options_that_cannot_be_are_named(world, options, field, words):
    with pytest.raises(FieldError, match=words) as caught:
        terms.check(terms.Options.model_validate(options), world.facts, "text")
    assert caught.value.field == field
    with pytest.raises(ValueError, match="trains language models"):
        terms.check(terms.Options(), world.facts, "classification")
    for bad in ({"rows": 0}, {"rows": "none"}, {"local_steps": 0}, {"most_tokens": 0}, {"negatives": 0}):
        with pytest.raises(ValueError, match=r"should be|greater"):
            terms.Options.model_validate(bad)


def test_a_vocabulary_that_the_tokenizer_exceeds_and_a_rate_that_explodes_are_refused_before_any_step(world):
    model, program = world.attach({}), world.program({})
    rows = model.base.get_input_embeddings()
    rows.table.num_embeddings = 20
    with pytest.raises(OutsideTable):
        world.run(Host(), model, program)
    rows.table.num_embeddings = world.facts.vocab_size
    host = Host()
    steep = program.phases[0].estimator.model_copy(update={"learning_rate": 1e30, "local_steps": 8})
    phase = program.phases[0].model_copy(update={"estimator": steep})
    with pytest.raises(NotTrainable, match="not finite"):
        world.run(host, world.attach({}), program.model_copy(update={"phases": (phase,)}))
    assert host.asked == []


def test_public_frequencies_are_the_maker_s_or_the_order_of_the_tokenizer(world):
    vocabulary = world.facts.vocab_size
    by_order = probabilities(world.folder, vocabulary)
    assert by_order.sum() == pytest.approx(1)
    assert (np.diff(by_order) < 0).all()
    counts = np.arange(vocabulary) % 7
    write_word_counts(world.folder, counts)
    counted = probabilities(world.folder, vocabulary)
    assert (counted > 0).all()
    assert counted[6] / counted[1] == pytest.approx(6)
    chosen = world.attach({"rows": 3}).base.get_output_embeddings().get_buffer("chosen")
    assert chosen.tolist() == [6, 13, 20]
    for bad in ("[1, 2]", "{}", "no", str([-1] * vocabulary)):
        (world.folder / WORD_COUNTS).write_text(bad)
        with pytest.raises(ValueError, match=WORD_COUNTS):
            world.attach({})
