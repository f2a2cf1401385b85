"""Rows of a table that train: nothing outside them moves by a bit, they begin as the public model, and what leaves is a
stock model with the same scores."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from dpcore import embedding_rows
from dpcore.engine.errors import NotTrainable
from dpcore.estimators import Setting, make
from dpcore.tasks.text import Texts
from dpcore.terms.estimators import Local
from dpcore.terms.speed import Speed

from .conftest import WORDS
from .test_train import make_program

VOCABULARY, WIDTH = 70, 16
CHOSEN = embedding_rows.by_seed(VOCABULARY, 20, seed=1)
OUTSIDE = np.setdiff1d(np.arange(VOCABULARY), CHOSEN)
OWNERS = np.array([0, 1, 2, 0, 1, 3, 3, 3])


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def base(request):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=1, n_head=2, n_positions=32)
    return GPT2LMHeadModel(GPT2Config(**config.to_dict() | {"tie_word_embeddings": request.param})).eval()


def scores(model, ids=torch.arange(VOCABULARY).view(7, 10)):
    with torch.no_grad():
        return model(input_ids=ids).logits


def shaken(model, seed=1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.requires_grad:
                p.copy_(torch.randn(p.shape, generator=generator))
                yield name


def test_it_begins_as_the_public_model_and_leaves_as_a_stock_one_with_the_same_scores(base, tmp_path):
    public, tables = (
        scores(base),
        [base.get_input_embeddings().weight.clone(), base.get_output_embeddings().weight.clone()],
    )
    base.requires_grad_(False)
    embedding_rows.attach(base, CHOSEN)
    assert torch.equal(scores(base), public)
    tied = base.config.tie_word_embeddings
    assert len(list(shaken(base))) == (1 if tied else 2)
    trained = scores(base)
    assert not torch.allclose(trained, public, atol=0.1)
    embedding_rows.merge(base)
    torch.testing.assert_close(scores(base), trained, rtol=1e-5, atol=1e-5)
    for table, before in zip((base.get_input_embeddings(), base.get_output_embeddings()), tables, strict=True):
        assert torch.equal(table.weight[OUTSIDE], before[OUTSIDE])
        assert (table.weight[CHOSEN] != before[CHOSEN]).all()
    base.save_pretrained(tmp_path)
    torch.testing.assert_close(scores(AutoModelForCausalLM.from_pretrained(tmp_path)), trained, rtol=1e-5, atol=1e-5)


def test_the_change_s_gradient_is_that_of_the_table_s_rows(base):
    """Of a loss over all scores, the table being both embedding and head where they are one."""
    ids = torch.arange(VOCABULARY).view(7, 10)
    base.double()
    base(input_ids=ids, labels=ids).loss.backward()
    tables = base.get_input_embeddings().weight, base.get_output_embeddings().weight
    wanted = [table.grad[CHOSEN].clone() for table in tables]
    base.zero_grad()
    embedding_rows.attach(base, CHOSEN)
    base(input_ids=ids, labels=ids).loss.backward()
    found = base.get_input_embeddings().change.grad, base.get_output_embeddings().change.grad
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_a_round_of_users_moves_and_noises_these_rows_alone(base, writer_tokenizer):
    """What a user's training moves has as many numbers as the subset has; a row that no user's words touch is there."""
    base.requires_grad_(False)
    embedding_rows.attach(base, CHOSEN)
    task = Texts(writer_tokenizer, 16)
    records = task.encode({"text": [" ".join(WORDS[i : i + 6]) for i in range(8)]})
    program = make_program(
        unit="user", estimator=Local(learning_rate=0.5, local_steps=2), clipping="flat", clip_norm=0.1, sample_rate=1.0
    )
    estimator = make(Setting(base, task, records, OWNERS, "user", program.phases[0], Speed(), lambda: False))
    estimator.rehearse()
    total = estimator.sum(np.arange(4), 0.1, lambda: None)
    assert len(total.value) == (1 if base.config.tie_word_embeddings else 2) * len(CHOSEN) * WIDTH
    assert 0 < float(total.value.norm()) <= 0.4


def test_the_subset_owes_nothing_to_the_file_and_is_refused_where_there_is_none():
    counts = [3, 9, 9, 0, 5]
    assert embedding_rows.by_frequency(counts, 3).tolist() == [1, 2, 4]
    assert embedding_rows.by_frequency(counts, 5).tolist() == [0, 1, 2, 3, 4]
    assert (embedding_rows.by_seed(70, 20, 1) == CHOSEN).all()
    assert len(set(CHOSEN.tolist())) == 20
    for rows in (0, 6):
        with pytest.raises(ValueError, match=f"{rows} of them cannot train"):
            embedding_rows.by_frequency(counts, rows)


def test_a_model_whose_tables_are_of_another_kind_is_refused(base):
    base.get_input_embeddings().max_norm = 1.0
    with pytest.raises(NotTrainable, match="changes its rows by itself"):
        embedding_rows.attach(base, CHOSEN)
    base.set_output_embeddings(torch.nn.Linear(WIDTH, VOCABULARY + 1))
    with pytest.raises(NotTrainable, match="no plain table"):
        embedding_rows.attach(base, CHOSEN)
