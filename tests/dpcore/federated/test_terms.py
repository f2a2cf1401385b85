"""What is said of a federated job before it runs: each silo's price on its own budget, and what travels."""

import math
from fractions import Fraction

import pytest
from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent
from dp_accounting.rdp import RdpAccountant

from dpcore.federated.silo import attach, factors
from dpcore.terms import accounting
from dpcore.terms.errors import FieldError
from dpcore.terms.facts import read_facts
from dpcore.terms.federated import payload
from dpcore.terms.federated.options import Options
from dpcore.terms.federated.silo import Request, longest_message, phases, resolve, silo_program
from dpcore.terms.federated.weights import weights
from dpcore.terms.program import Phase
from tests.dpcore.test_train import secret

from .conftest import make_options, make_program, round_of

SIZE, DELTA = 2000, 1e-5


def priced(options, epsilon=8.0):
    numbers = resolve(Request(batch_size=200), options, declared_size=SIZE)
    filter = accounting.reference_filter(epsilon, DELTA, 0.1, 100)
    more = {"declared_size": SIZE, "epsilon": epsilon, "delta": DELTA, "filter": filter, "unit": "record"}
    return silo_program(options, numbers, **more, max_length=64, seed=0), filter


@pytest.mark.parametrize(
    ("clipping", "rate", "steps", "golden"),
    [("record", 0.1, 100, 1.012557), ("delta", 1.0, 50, 4.983441)],
    ids=["record", "delta"],
)
def test_a_silos_price_is_the_accountants(clipping, rate, steps, golden):
    """Of all local steps on its own rate, or of one output on the whole file a round, calibrated as any other job."""
    program, filter = priced(Options(clipping=clipping, local_steps=2))
    (phase,) = program.phases
    assert (phase.mechanism.sample_rate, phase.steps, phase.trains) == (rate, steps, "lora")
    sigma = phase.mechanism.noise_multiplier
    assert sigma == pytest.approx(golden, abs=1e-5)
    event = PoissonSampledDpEvent(rate, GaussianDpEvent(sigma))
    accountant = RdpAccountant(list(filter.orders), NeighboringRelation.ADD_OR_REMOVE_ONE).compose(event, steps)
    cost = program.cost(filter.orders)
    assert [k / accounting.UNITS_PER_NAT for k in cost] == pytest.approx(list(accountant.rdp), rel=1e-6)
    assert accounting.epsilon_alone(cost, DELTA, filter) <= 8
    less = phase.mechanism.model_copy(update={"noise_multiplier": sigma - 1e-4})
    assert accounting.epsilon_alone(accounting.cost(less.curve(filter.orders), steps), DELTA, filter) > 8


def test_no_draw_and_no_batch_makes_a_delta_cheaper():
    """Its phase is on the whole file, one vector; anything else is refused."""
    (phase,) = phases(
        Options(clipping="delta", local_steps=2),
        resolve(Request(batch_size=200), Options(), declared_size=SIZE),
        declared_size=SIZE,
    )
    assert (phase.mechanism.kind, phase.expected_batch, phase.clipping, phase.steps) == ("gaussian", 1, "flat", 50)
    assert phase.clip_norm == 1.0 * 0.5 * 2
    sampled = {"kind": "poisson_gaussian", "sample_rate": 0.5, "noise_multiplier": 1.0}
    for change in ({"expected_batch": 2}, {"clipping": "automatic"}, {"mechanism": sampled}):
        with pytest.raises(ValueError, match="whole file"):
            Phase.model_validate(phase.model_dump() | change)


def test_rounds_and_local_steps_make_the_steps():
    numbers = resolve(Request(), make_options(rounds=7, local_steps=3), declared_size=SIZE)
    assert (numbers.steps, numbers.batch_size, numbers.optimizer, numbers.betas[0]) == (21, 500, "sgd", 0.0)
    with pytest.raises(FieldError, match="declared size"):
        resolve(Request(batch_size=SIZE + 1), Options(), declared_size=SIZE)
    with pytest.raises(ValueError, match="dropout"):
        Options(dropout=0.1)


def test_survivors_count_by_declared_size():
    assert weights({"b": 1, "a": 3, "c": 9}, ["b", "a"]) == {"a": Fraction(3, 4), "b": Fraction(1, 4)}
    with pytest.raises(ValueError, match="no silo"):
        weights({"a": 1}, [])


@pytest.mark.parametrize("factors_of", ["a-frozen", "both", "alternating"])
def test_what_travels_is_what_trains(make_base, make_model, base_folder, factors_of):
    """About, by shapes alone: here the very number."""
    options = make_options(factors=factors_of, rounds=1)
    found = factors(attach(make_base(layers=2), options, task="classification", seed=3))
    facts = read_facts(base_folder)
    counted = payload.numbers(options, facts, labels=3, task="classification")
    assert counted == sum(value.numel() for value in found.values())
    assert payload.message_bytes(counted) == 4 * counted


def test_from_which_rank_on_factors_are_no_smaller():
    assert payload.crossover(384, 384) == 192
    assert payload.crossover(256, 768) == 192
    rank = payload.crossover(1024, 4096)
    assert rank * (1024 + 4096) == pytest.approx(1024 * 4096)
    assert payload.ratio(22_713_216, 73_728) == pytest.approx(308.07, abs=0.01)


@pytest.mark.parametrize("clipping", ["record", "delta"])
def test_no_honest_message_is_longer_than_its_bound(make_silo, clipping):
    """Noise included; and the bound is one: a hundred times the message is above it."""
    options = make_options(clipping=clipping)
    silo, state = make_silo(options, noise=3.0)
    sent = round_of(silo, state, secret())
    numbers = sum(value.numel() for value in sent.delta.values())
    norm = math.sqrt(sum(float(value.double().square().sum()) for value in sent.delta.values()))
    program = make_program(options, noise=3.0)
    bound = longest_message(program, options, declared_size=24, numbers=numbers, round=0)
    assert norm <= bound < 100 * norm
    assert longest_message(program, options, declared_size=24, numbers=numbers, round=3) < bound
    if clipping == "record":
        adaptive = make_program(options, clipping="adaptive")
        assert longest_message(adaptive, options, declared_size=24, numbers=numbers, round=0) is None
