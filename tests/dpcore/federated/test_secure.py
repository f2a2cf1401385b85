"""Pairwise masks: the sum is exact, and one silo's message alone is uniform to whoever adds up."""

from itertools import combinations

import numpy as np
import pytest

from dpcore.federated.secure import grid
from dpcore.federated.secure.keys import PublicKeys, SiloKeys, usable
from dpcore.federated.secure.rounds import (
    Aggregator,
    Agreement,
    MaskedSilo,
    NotOpened,
    Opening,
    SentBefore,
    Try,
    _signed,
    digest,
)
from dpcore.mechanism.keystream import Keystream

SIZE = 1000
OF = Try("ftjob-1", 3, 0)
NAMES = ("a", "b", "c", "d", "e")


class Silos:
    """Five of them, with messages of their own."""

    def __init__(self, of: Try = OF) -> None:
        self.keys = {name: SiloKeys() for name in NAMES}
        self.public = {name: keys.public for name, keys in self.keys.items()}
        chance = np.random.default_rng(0)
        self.messages = {name: chance.normal(size=SIZE).astype(np.float32) for name in NAMES}
        self.weights = dict(zip(NAMES, (1, 70, 3, 20, 9), strict=True))
        self.silos = {name: MaskedSilo(name, keys, self.public, of) for name, keys in self.keys.items()}
        self.aggregator = Aggregator(self.public, of)

    def encoded(self, name: str) -> np.ndarray:
        return grid.encode(self.messages[name], self.weights[name])

    def send(self, names: tuple[str, ...]) -> None:
        for name in names:
            self.aggregator.take(name, self.silos[name].mask(self.encoded(name)))

    def agree(self) -> tuple[Agreement, dict[str, bytes]]:
        agreement = self.aggregator.agreement()
        return agreement, {name: self.silos[name].agree(agreement) for name in agreement.digests}


@pytest.mark.parametrize("names", [names for count in (3, 4, 5) for names in combinations(NAMES, count)], ids="".join)
def test_whoever_drops_out_the_sum_is_that_of_those_who_are_in(names):
    silos = Silos()
    silos.send(names)
    agreement, signatures = silos.agree()
    total = silos.aggregator.total(agreement, {name: silos.silos[name].open(signatures) for name in names})
    weight = sum(silos.weights[name] for name in names)
    mean = sum(silos.weights[name] * silos.messages[name].astype(np.float64) for name in names) / weight
    np.testing.assert_allclose(grid.decode(total, weight), mean, atol=grid.STEP)
    assert (total == sum(silos.encoded(name) for name in names)).all()  # modulo 2^64 nothing is rounded


def test_of_one_silo_nothing_but_uniform_bits_is_seen():
    """A masked message, the sum of any that are not all, and a message that came late: each with all that was opened
    for the others taken off."""
    silos = Silos()
    zeros = np.zeros(2**15, np.uint64)
    masked = {name: silos.silos[name].mask(zeros) for name in NAMES}
    for name in NAMES:
        silos.aggregator.take(name, masked[name])
    whole = silos.aggregator.agreement()
    agreement = Agreement(OF, {name: whole.digests[name] for name in NAMES[:4]})  # the last one is said to be late
    signatures = {name: silos.silos[name].agree(agreement) for name in NAMES[:4]}
    openings = {name: silos.silos[name].open(signatures) for name in NAMES[:4]}
    views = dict(masked)
    for name, opening in openings.items():
        views[f"{name} opened"] = masked[name] - Keystream(opening.own).integers(zeros.size)
    views["the late one without its pairs"] = masked["e"] + sum(
        _signed(name, "e", Keystream(opening.shared["e"]).integers(zeros.size)) for name, opening in openings.items()
    )
    views["all but one"] = sum(views[f"{name} opened"] for name in NAMES[:3])
    for what, view in views.items():
        assert uniform(view), what
    for one, other in combinations(views, 2):
        assert uniform(views[one] - views[other]), (one, other)
    assert not uniform(silos.aggregator.total(agreement, openings))  # zeros: the sum is what is meant to be seen


def uniform(values: np.ndarray) -> bool:
    """Each byte of 2^15 numbers within five standard deviations of its mean, and each value of a byte about as often."""
    counts = np.stack([np.bincount(column, minlength=256) for column in values.view(np.uint8).reshape(-1, 8).T])
    expected = values.size / 256
    chi = ((counts - expected) ** 2 / expected).sum(1)  # 255 degrees of freedom: mean 255, deviation 22.6
    return bool((abs(chi - 255) < 5.5 * 22.6).all())


def test_no_silo_opens_for_two_lists_or_for_one_that_others_did_not_sign():
    silos = Silos()
    silos.send(NAMES)
    whole, signatures = silos.agree()
    fewer = Agreement(OF, {name: whole.digests[name] for name in NAMES[:4]})
    with pytest.raises(NotOpened, match="another list was agreed"):
        silos.silos["a"].agree(fewer)
    with pytest.raises(NotOpened, match="e has not signed"):
        silos.silos["a"].open({**signatures, "e": silos.keys["e"].signature(fewer.signed)})
    with pytest.raises(NotOpened, match="e has not signed"):
        silos.silos["a"].open({name: signature for name, signature in signatures.items() if name != "e"})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda whole: Agreement(Try(OF.job, OF.round, 1), whole.digests), "another round or try"),
        (lambda whole: Agreement(OF, {**whole.digests, "stranger": bytes(32)}), "not silos of this job: stranger"),
        (lambda whole: Agreement(OF, {n: whole.digests[n] for n in NAMES[:2]}), "at least 3 silos"),
        (lambda whole: Agreement(OF, {n: whole.digests[n] for n in NAMES[1:]}), "own message is not in"),
        (lambda whole: Agreement(OF, {**whole.digests, "a": bytes(32)}), "own message is not in"),
    ],
)
def test_a_list_that_a_silo_must_not_open_for(change, words):
    silos = Silos()
    silos.send(NAMES)
    with pytest.raises(NotOpened, match=words):
        silos.silos["a"].agree(change(silos.aggregator.agreement()))
    with pytest.raises(NotOpened, match="agreed to nothing"):
        silos.silos["a"].open({})


def test_a_try_that_one_who_is_in_does_not_open_is_over_and_the_next_has_other_masks():
    silos = Silos()
    silos.send(NAMES)
    agreement, signatures = silos.agree()
    openings = {name: silos.silos[name].open(signatures) for name in NAMES[:4]}
    with pytest.raises(ValueError, match="e has not opened"):
        silos.aggregator.total(agreement, openings)
    with pytest.raises(ValueError, match="a has not opened"):
        silos.aggregator.total(agreement, {**openings, "a": Opening(openings["a"].own, {"b": bytes(32)})})
    a, b = silos.keys["a"], silos.public["b"]
    assert a.seed_with(b, OF.context) != a.seed_with(b, Try(OF.job, OF.round, 1).context)
    again = MaskedSilo("a", silos.keys["a"], silos.public, Try(OF.job, OF.round, 1))
    assert digest(again.mask(silos.encoded("a"))) != agreement.digests["a"]


def test_masks_are_used_once_and_a_message_is_taken_once():
    silos = Silos()
    silos.send(NAMES)
    with pytest.raises(ValueError, match="used up"):
        silos.silos["a"].mask(silos.encoded("a"))
    first = silos.aggregator._masked["a"]
    silos.aggregator.take("a", first.copy())  # the same one again
    for name, message, words in (
        ("a", first + np.uint64(1), "another message"),
        ("stranger", first, "not a silo"),
        ("b", first[:-1], "another shape"),
        ("b", first.view(np.float64), "another shape"),
    ):
        with pytest.raises(ValueError, match=words):
            silos.aggregator.take(name, message)


def test_keys_that_are_not_the_silos_own_are_refused():
    silos = Silos()
    with pytest.raises(ValueError, match="not among the silos"):
        MaskedSilo("a", SiloKeys(), silos.public, OF)
    with pytest.raises(ValueError, match="the same key"):
        MaskedSilo("a", silos.keys["a"], {**silos.public, "b": silos.public["c"]}, OF)
    low = silos.public["b"].__class__(bytes(32), silos.public["b"].sign)
    with pytest.raises(ValueError, match="shared key"):
        MaskedSilo("a", silos.keys["a"], {**silos.public, "b": low}, OF).mask(silos.encoded("a"))


def test_the_grid_holds_what_may_be_summed_and_refuses_the_rest():
    weights = {"a": 2**25, "b": 2**25}
    grid.weights_fit(weights)
    total = sum(grid.encode(np.array([-1e9, 1e9]), weight) for weight in weights.values())
    assert list(grid.decode(total, 2**26)) == [-grid.LIMIT, grid.LIMIT]
    for wrong in ({"a": 2**26, "b": 1}, {"a": 0, "b": 1}):
        with pytest.raises(ValueError, match="weight"):
            grid.weights_fit(wrong)
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="not finite"):
            grid.encode(np.array([bad]), 1)


def restored(silos: Silos, name: str, signature: bytes | None = None) -> MaskedSilo:
    """The same silo in another process, from its secret keys and what it sent."""
    keys = SiloKeys.loads(silos.keys[name].dumps())
    kept = SentBefore(silos.silos[name].nonce, digest(silos.aggregator._masked[name]), signature)
    return MaskedSilo(name, keys, silos.public, OF, kept)


def test_who_died_after_its_message_signs_and_opens_in_another_process():
    silos = Silos()
    silos.send(NAMES)
    agreement, signatures = silos.agree()
    again = restored(silos, "a")
    assert again.agree(agreement) == signatures["a"]
    assert again.open(signatures) == silos.silos["a"].open(signatures)
    with pytest.raises(ValueError, match="used up"):
        again.mask(silos.encoded("a"))
    fewer = Agreement(OF, {name: agreement.digests[name] for name in NAMES[:4]})
    with pytest.raises(NotOpened, match="another list"):
        restored(silos, "a", signatures["a"]).agree(fewer)


def test_a_message_that_is_made_again_has_another_mask_of_its_own():
    """Two messages under one mask would give away their difference."""
    silos = Silos()
    zeros = np.zeros(2**15, np.uint64)
    first, again = (MaskedSilo("a", silos.keys["a"], silos.public, OF) for _ in range(2))
    assert first.nonce != again.nonce
    assert uniform(first.mask(zeros) - again.mask(zeros))


def test_keys_that_are_none_of_small_order_or_two_silos_are_left_out():
    keys = {name: SiloKeys().public for name in NAMES}
    said = {name: key.text for name, key in keys.items()}
    assert usable(said) == keys
    low = PublicKeys(bytes(32), keys["b"].sign).text
    copied = PublicKeys(keys["d"].agree, keys["c"].sign).text
    assert usable({**said, "a": "no key", "b": low, "c": copied}).keys() == {"e"}
    with pytest.raises(ValueError, match="keys are 64 bytes"):
        SiloKeys.loads(b"")


def test_a_sum_of_other_messages_than_those_agreed_on_is_none():
    silos = Silos()
    silos.send(NAMES)
    agreement, signatures = silos.agree()
    openings = {name: silos.silos[name].open(signatures) for name in NAMES}
    silos.aggregator._masked["a"] = silos.aggregator._masked["a"] + np.uint64(1)
    with pytest.raises(ValueError, match="not there as it was"):
        silos.aggregator.total(agreement, openings)
