"""The token budget follows from the machine and from public records."""

import pytest
import torch

from dpcore.machine import token_budget
from dpcore.terms.speed import Speed

from .test_train import Host, make_program


@pytest.mark.parametrize(
    ("best", "fitting", "most", "expected"),
    [(64, 10**6, 10**6, 64), (10**6, 100, 10**6, 128), (10**6, 10**6, 100, 64), (1, 10**6, 10**6, 16)],
    ids=["gain", "memory", "buffers", "none"],
)
def test_grows_while_it_fits_and_gains(best, fitting, most, expected):
    """Up to `best` records a micro-batch takes no longer for having more."""
    tried = []

    def seconds(count):
        tried.append(count)
        return max(count, best)

    assert token_budget.grow(seconds, start=16, most=most, fits=lambda: tried[-1] < fitting) == expected
    assert max(tried) <= most


def test_a_processor_gets_a_fixed_budget_unless_its_memory_is_short(monkeypatch):
    def run(count):
        x, weight = torch.ones(count, 1000, requires_grad=True), torch.ones(10**5, requires_grad=True)
        ((x * x).sum() + (weight * weight).sum()).backward()  # keeps 4,000 bytes a record, and the weights

    cpu = torch.device("cpu")
    monkeypatch.setattr(token_budget, "free_bytes", lambda: 10**9)
    assert token_budget.find(run, length=128, most=10**6, device=cpu) == token_budget.CPU_TOKENS
    monkeypatch.setattr(token_budget, "free_bytes", lambda: 80_000)
    assert token_budget.find(run, length=128, most=10**6, device=cpu) == 5 * 128
    monkeypatch.setattr(token_budget, "free_bytes", lambda: 0)
    assert token_budget.find(run, length=128, most=10**6, device=cpu) == 128


@pytest.mark.parametrize(
    ("files", "expected", "whole"),
    [
        ({}, 2**30, 2**31),
        ({"memory.max": "max", "memory.current": "5"}, 2**30, 2**31),
        ({"memory.max": "1000", "memory.current": "600", "memory.stat": "anon 350\nactive_file 50\n"}, 450, 1000),
        ({"memory.max": "1000", "memory.current": "1200", "memory.stat": ""}, 0, 1000),
        (
            {
                "memory/memory.limit_in_bytes": "1000",
                "memory/memory.usage_in_bytes": "600",
                "memory/memory.stat": "inactive_file 200\nrss 10",
            },
            600,
            1000,
        ),
    ],
    ids=["none", "unlimited", "v2", "overdrawn", "v1"],
)
def test_memory_is_the_machine_s_or_the_control_group_s(tmp_path, files, expected, whole):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 2097152 kB\nMemAvailable: 1048576 kB\n")
    (tmp_path / "sys/fs/cgroup/memory").mkdir(parents=True)
    for name, text in files.items():
        (tmp_path / "sys/fs/cgroup" / name).write_text(text)
    assert token_budget.free_bytes(tmp_path) == expected
    assert token_budget.device_bytes(torch.device("cpu"), tmp_path) == whole


def test_nothing_is_computed_on_a_private_record_before_the_first_authorisation(
    make_model, make_records, task, monkeypatch
):
    records, original, seen, host = make_records(10), task.losses, [], Host()

    def losses(model, some, indices, length):
        seen.append((some is records, bool(host.asked)))
        return original(model, some, indices, length)

    monkeypatch.setattr(task, "losses", losses)
    host.run(make_model(), task, records, make_program(), speed=Speed(tokens="auto"))
    assert {private for private, authorised in seen if not authorised} == {False}
    assert {private for private, authorised in seen if authorised} == {True}


def test_a_machine_with_little_memory_still_trains(make_model, make_records, task, monkeypatch):
    sizes, original = set(), task.losses

    def losses(model, records, indices, length):
        if len(records) == 40:
            sizes.add(len(indices))
        return original(model, records, indices, length)

    monkeypatch.setattr(task, "losses", losses)
    monkeypatch.setattr(token_budget, "free_bytes", lambda: 0)
    assert Host().run(make_model(), task, make_records(40), make_program(sample_rate=1.0, steps=1)).ended == "finished"
    assert max(sizes) <= 4  # the budget is one record of the largest length, 16 tokens
