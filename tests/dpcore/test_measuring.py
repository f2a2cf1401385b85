"""The private measurement: what a unit may move, how sure the figure is, and that weights stay where they are."""

from math import log, sqrt

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dpcore.estimators import Setting
from dpcore.estimators import make as make_estimator
from dpcore.estimators.measurement import deviation
from dpcore.mechanism import output
from dpcore.mechanism.keystream import Streams
from dpcore.tasks.records import Records
from dpcore.terms.measuring import CLIP_NORM, expected_error, expected_noise, mean_score, perplexity, trained_on
from dpcore.terms.program import Phase, Program, Unit, one_look
from dpcore.terms.speed import Speed

RELEASES = 100


class Answers:
    """A task whose records say themselves how they are answered: by their label, or their one loss."""

    max_length = 8

    def right(self, model: nn.Module, records: Records, indices: np.ndarray, length: int) -> Tensor:
        return torch.from_numpy(records.labels[indices] == 1)

    def losses(self, model: nn.Module, records: Records, indices: np.ndarray, length: int) -> Tensor:
        return torch.from_numpy(records.marks[indices].astype(np.float64))

    def synthetic(self, count: int, length: int) -> Records:
        return records_of(np.ones(count, dtype=np.int64))


def records_of(answers: np.ndarray) -> Records:
    """Records of one token; the answer is the label, and the mark."""
    return Records(
        np.zeros(len(answers), np.int32), np.arange(len(answers) + 1), answers, np.nan_to_num(answers).astype(np.int64)
    )


def phase(noise: float, most_loss: float | None = None) -> Phase:
    return one_look("lora", noise, units=100, most_loss=most_loss)


def setting(of: Phase, records: Records, owners: np.ndarray | None = None, unit: Unit = "record") -> Setting:
    return Setting(nn.Linear(1, 1), Answers(), records, owners, unit, of, Speed(), lambda: False)


def sums(of: Phase, records: Records, owners: np.ndarray | None = None) -> np.ndarray:
    """Before the noise."""
    made = make_estimator(setting(of, records, owners, "record" if owners is None else "user"))
    made.rehearse()
    total = made.sum(np.arange(made.units), of.clip_norm, lambda: pytest.fail("nothing is drawn"))
    return total.value.numpy().copy()


@pytest.mark.parametrize("most_loss", [None, 3.0])
def test_a_unit_moves_the_sums_by_the_clip_at_most(most_loss: float | None) -> None:
    """A record, or a user whatever its records are, a loss that is no number among them."""
    of = phase(1.0, most_loss)
    answers = np.array([1, 0, 1, 1, 3, 99, 1, 0, np.nan])
    owners = np.array([0, 0, 0, 1, 1, 1, 2, 2, 3])
    whole = sums(of, records_of(answers))
    for left_out in range(len(answers)):
        moved = whole - sums(of, records_of(np.delete(answers, left_out)))
        assert np.linalg.norm(moved) <= CLIP_NORM * (1 + 1e-9)
    of_users = sums(of, records_of(answers), owners)
    assert of_users[1] == pytest.approx(0.5 * len(set(owners)), abs=1e-9)
    without = sums(of, records_of(answers[owners != 1]), owners[owners != 1] - (owners[owners != 1] > 1))
    assert np.linalg.norm(of_users - without) <= CLIP_NORM * (1 + 1e-9)
    assert whole[1] == pytest.approx(sum(1 for a in answers if most_loss is None or a != 0) / 2, abs=1e-9)


def test_the_error_covers_the_truth_in_19_of_20_releases() -> None:
    """Of the population by the whole error, of these very units by the noise's part alone."""
    draws = np.random.default_rng(5)
    truth, noise, held = 0.87, 6.0, 400
    of = phase(noise)
    population, exact = 0, 0
    for number in range(RELEASES):
        answers = (draws.random(held) < truth).astype(np.int64)
        made = make_estimator(setting(of, records_of(answers)))
        total = made.sum(np.arange(held), of.clip_norm, lambda: pytest.fail("nothing is drawn"))
        stream = Streams(test_secret=b"measure %d" % number).at("noise", 0)
        x, y = output.noised(of, total, of.clip_norm, stream, dtype=made.dtype).mean.tolist()
        found = mean_score(x, y, deviation(of))
        assert found is not None
        assert found.noise_error < found.standard_error
        population += abs(found.value - truth) <= 1.96 * found.standard_error
        exact += abs(found.value - answers.mean()) <= 1.96 * found.noise_error
    # Binomial(100, 0.95) is below 89 in one of 200 cases.
    assert min(population, exact) >= 89, (population, exact)
    assert expected_noise(noise, held) == pytest.approx(deviation(of) * sqrt(2) / held, rel=1e-5)
    assert expected_error(noise, held) > found.standard_error


def test_a_sum_that_noise_drowns_says_nothing() -> None:
    assert mean_score(3.0, 5.0, 5.0) is None
    assert mean_score(-3.0, -500.0, 5.0) is None
    sure = mean_score(600.0, 500.0, 1.0)  # by chance more right answers than units
    assert sure is not None
    assert (sure.value, sure.standard_error > 0) == (1.0, True)
    of_losses = mean_score(-200.0, 500.0, 1.0)
    assert of_losses is not None
    told = perplexity(of_losses, 10.0)
    assert log(told.value) == pytest.approx(10 * of_losses.value)
    assert told.standard_error == pytest.approx(told.value * 10 * of_losses.standard_error)
    assert (trained_on(1000, 0.1), trained_on(1, 0.5)) == (900, 1)


def test_a_measurement_is_the_last_phase_and_one_look() -> None:
    alone = {"method": "lora", "max_length": 8, "phases": [phase(1.0)]}
    with pytest.raises(ValueError, match="last phase, and not the only one"):
        Program.model_validate(alone)
    for change in ({"steps": 2}, {"clip_norm": 1.0}, {"clipping": "automatic"}, {"expected_batch": 5}):
        with pytest.raises(ValueError, match="one sum over the whole held-out part"):
            Phase.model_validate(phase(1.0).model_dump() | change)
