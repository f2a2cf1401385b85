"""Sampled records: shared out by public weights, begun as in training, and of the shape of their task's files."""

import json
from typing import Any

import pytest
import torch

from dpcore.machine.micro_batches import Stopped
from dpcore.synthetic import batches, beginnings, sample
from dpcore.tasks import make_task
from dpcore.terms.synthetic import Synthetic, shared_out
from tests.dpcore.test_chat_tokens import TEMPLATES
from tests.dpcore.test_chat_tokens import tokenizer as trained

POSITIONS = 64


@pytest.fixture
def writer(make_base: Any) -> Any:
    return make_base("llama-lm")


def test_records_are_shared_out_by_weight_to_the_last_one() -> None:
    assert shared_out(10, [1, 1, 1]) == [4, 3, 3]
    assert shared_out(7, [1, 3]) == [2, 5]
    assert shared_out(2, [1e-6, 1e6, 1e6]) == [0, 1, 1]
    for total in range(1, 60):
        assert sum(shared_out(total, [0.1, 0.2, 0.3, 0.7])) == total


def test_rows_of_a_batch_begin_alike_and_none_is_too_large() -> None:
    wanted = Synthetic(records=200, max_new_tokens=1000)
    assert batches(wanted, [1] * 24, 40) == [16, 16, 8]
    assert batches(wanted, [1] * 30_000, 2) == [1, 1]
    assert batches(Synthetic(records=200, max_new_tokens=1), [1], 130) == [64, 64, 2]


@pytest.mark.parametrize("kind", ["text", "completion"])
def test_a_beginning_is_what_stood_before_the_target_in_training(kind: str, writer_tokenizer: Any) -> None:
    task = make_task(kind, writer_tokenizer, max_length=4)  # longer prompts are not cut
    wanted = Synthetic(records=1, max_new_tokens=2, prompts=["the old pear and a new apple"])
    (ids,) = beginnings(wanted, kind, task, writer_tokenizer, POSITIONS)
    name = {"text": "text", "completion": "prompt"}[kind]
    whole = make_task(kind, writer_tokenizer, max_length=POSITIONS)
    record = {name: ["the old pear and a new apple"]} | ({"completion": ["zinc"]} if kind == "completion" else {})
    assert whole.rows(record)[0][0][: len(ids)].tolist() == ids
    assert len(ids) > 4


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_chat_goes_on_with_an_answer(template: str, writer: Any) -> None:
    tokenizer = trained("byte-level", template)
    writer.resize_token_embeddings(len(tokenizer))
    task = make_task("chat", tokenizer, max_length=POSITIONS)
    turns = [{"role": "user", "content": "hello there, what is iron?"}]
    wanted = Synthetic(records=4, max_new_tokens=5, prompts=[{"messages": turns}, "a new pear"])
    begin = beginnings(wanted, "chat", task, tokenizer, POSITIONS * 4)
    rows = list(sample(writer, tokenizer, wanted, "chat", begin, lambda: False))
    assert rows
    for row in rows:
        *asked, answer = row["messages"]
        assert asked in (turns, [{"role": "user", "content": "a new pear"}])
        assert answer["role"] == "assistant"
        assert answer["content"].strip()
    assert task.encode({"messages": [json.dumps(row["messages"]) for row in rows]})  # it may be learnt from


def test_draws_follow_from_the_seed_alone_and_leave_torch_as_it_was(writer: Any, writer_tokenizer: Any) -> None:
    task = make_task("text", writer_tokenizer, max_length=POSITIONS)

    def rows(seed: int) -> list[dict[str, Any]]:
        wanted = Synthetic(records=9, max_new_tokens=8, prompts=["the old", "iron"], seed=seed)
        begin = beginnings(wanted, "text", task, writer_tokenizer, POSITIONS)
        return list(sample(writer, writer_tokenizer, wanted, "text", begin, lambda: False))

    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = rows(1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    assert rows(1) == first
    assert rows(2) != first


def test_what_a_folder_says_of_drawing_steers_nothing(writer: Any, writer_tokenizer: Any) -> None:
    """A base model's generation_config may bring a temperature, a top_k or a penalty of its own."""
    task = make_task("text", writer_tokenizer, max_length=POSITIONS)
    wanted = Synthetic(records=6, max_new_tokens=8, prompts=["the old"])
    begin = beginnings(wanted, "text", task, writer_tokenizer, POSITIONS)
    plain = list(sample(writer, writer_tokenizer, wanted, "text", begin, lambda: False))
    writer.generation_config.update(temperature=0.01, top_k=1, repetition_penalty=5.0, no_repeat_ngram_size=1)
    assert list(sample(writer, writer_tokenizer, wanted, "text", begin, lambda: False)) == plain


def test_it_stops_within_a_token(writer: Any, writer_tokenizer: Any) -> None:
    task = make_task("text", writer_tokenizer, max_length=POSITIONS)
    wanted = Synthetic(records=2, max_new_tokens=40, prompts=["the old"])
    begin, asked = beginnings(wanted, "text", task, writer_tokenizer, POSITIONS), []

    def should_stop() -> bool:
        asked.append(True)
        return len(asked) >= 3

    with pytest.raises(Stopped):
        list(sample(writer, writer_tokenizer, wanted, "text", begin, should_stop))
    assert len(asked) <= 4
