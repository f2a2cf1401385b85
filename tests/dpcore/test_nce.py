"""Noise-contrastive estimation: the loss written out, its mean gradient in closed form, and with many negatives that of
the softmax; from public probabilities alone."""

import math

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from dpcore import embedding_rows
from dpcore.mechanism.keystream import Streams
from dpcore.tasks.nce import Nce
from dpcore.tasks.text import Texts

from .conftest import WORDS

VOCABULARY, WIDTH = 70, 16
P = np.linspace(1.0, 3.0, VOCABULARY) / np.linspace(1.0, 3.0, VOCABULARY).sum()


def stream(name=b"test"):
    return Streams(test_secret=name).at("directions", 0)


@pytest.fixture(params=["plain", "changed rows"])
def model(request):
    torch.manual_seed(0)
    made = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=1, n_head=2, n_positions=32))
    made = made.double().eval()
    if request.param == "changed rows":
        embedding_rows.attach(made, embedding_rows.by_seed(VOCABULARY, 30, 1))
        torch.nn.init.normal_(made.get_input_embeddings().change)
    return made


@pytest.fixture
def batch(writer_tokenizer):
    task = Texts(writer_tokenizer, 16)
    return task, task.encode({"text": [" ".join(WORDS[i : i + 3 + i]) for i in range(4)]})


@pytest.mark.parametrize("ranking", [False, True])
def test_the_loss_is_the_one_that_is_written_down(model, batch, ranking):
    task, records = batch
    found = task.losses(model, records, np.arange(4), 16, loss=Nce(P, 12, stream(), normaliser=0.7, ranking=ranking))
    drawn = Nce(P, 12, stream())._drawn()
    for i in range(4):
        start = int(np.asarray(records.lengths)[:i].sum())
        ids = torch.from_numpy(records.tokens[start : start + int(records.lengths[i])].astype(np.int64))
        marks = records.marks[start : start + len(ids)]
        scores = model(input_ids=ids.unsqueeze(0)).logits[0]
        terms = []
        for place in range(len(ids) - 1):
            if not marks[place + 1]:
                continue
            words = (int(ids[place + 1]), *drawn.tolist())
            delta = [float(scores[place, w]) - math.log(12 * P[w]) - 0.7 for w in words]
            if ranking:
                terms.append(math.log(sum(math.exp(d) for d in delta)) - delta[0])
            else:
                terms.append(math.log1p(math.exp(-delta[0])) + sum(math.log1p(math.exp(d)) for d in delta[1:]))
        assert float(found[i]) == pytest.approx(sum(terms) / len(terms), rel=1e-9)
    assert "forward" not in vars(model.get_output_embeddings())


def test_with_many_negatives_its_gradient_is_that_of_the_softmax():
    """Of scores that are normalised: in closed form over the distribution of negatives, and drawn."""
    torch.manual_seed(1)
    scores = torch.randn(VOCABULARY, dtype=torch.float64).log_softmax(0)
    target, p = 7, torch.from_numpy(P)
    softmax = scores.exp() - torch.nn.functional.one_hot(torch.tensor(target), VOCABULARY)
    far = []
    for k in (10, 100, 1000, 100_000):
        is_data = (scores - (k * p).log()).sigmoid()
        wanted = k * p * is_data
        wanted[target] -= 1 - is_data[target]
        far.append(float((wanted - softmax).norm()))
    assert far == sorted(far, reverse=True)
    assert far[-1] < 1e-3
    # What is drawn has that mean.
    k, leaf = VOCABULARY, scores.clone().requires_grad_()
    total, rounds, one = torch.zeros(VOCABULARY, dtype=torch.float64), 4000, stream()
    nce = Nce(P, k, one)
    for _ in range(rounds):
        drawn = nce._drawn()
        loss = -torch.nn.functional.logsigmoid(leaf[target] - (k * p[target]).log())
        loss = loss - torch.nn.functional.logsigmoid((k * p[drawn]).log() - leaf[drawn]).sum()
        total += torch.autograd.grad(loss, leaf)[0]
    is_data = (scores - (k * p).log()).sigmoid()
    wanted = k * p * is_data
    wanted[target] -= 1 - is_data[target]
    deviation = (k * p * is_data**2 / rounds).sqrt()
    assert ((total / rounds - wanted).abs() < 5.5 * deviation + 1e-9).all()


def test_gradients_reach_rows_and_states_and_no_score_of_all_words_is_made(model, batch):
    task, records = batch
    made = []
    model.get_output_embeddings().register_forward_hook(lambda *a: made.append(a[2].untyped_storage().nbytes()))
    task.losses(model, records, np.arange(4), 16, loss=Nce(P, 5, stream())).sum().backward()
    assert made == [8]  # the stand-in is one number
    table = model.get_input_embeddings()
    change = getattr(table, "change", getattr(table, "weight", None))
    assert change.grad.abs().sum() > 0


def test_what_is_no_distribution_is_refused():
    for bad in (np.zeros(3), np.array([1.0, math.nan]), np.ones((2, 2)), np.array([0.5, -0.5])):
        with pytest.raises(ValueError, match="probability above zero"):
            Nce(bad, 1, stream())
    for negatives in (0, 4):
        with pytest.raises(ValueError, match="cannot be drawn"):
            Nce(np.ones(3), negatives, stream())


def test_words_are_drawn_as_often_as_their_probabilities_say():
    drawn = np.concatenate([Nce(P, VOCABULARY, stream(b"%d" % i))._drawn().numpy() for i in range(600)])
    counts, expected = np.bincount(drawn, minlength=VOCABULARY), len(drawn) * P
    chi = ((counts - expected) ** 2 / expected).sum()  # 69 degrees of freedom: deviation 11.7
    assert abs(chi - 69) < 5 * 11.7
