"""The conformance kit: golden values hold here, and a wrong accountant is named."""

from dpcore.audit import golden
from dpcore.terms import accounting


def test_every_golden_value_of_the_curves_and_the_filter_holds():
    found = [one for one in golden.values() if one.accountant == "integer curve"]
    assert len(found) >= 8
    assert [one.what for one in found if not one.low <= one.compute() <= one.high] == []


def test_every_value_has_a_source_and_each_accountant_has_values():
    every = list(golden.values())
    assert {one.accountant for one in every} == {"integer curve", "Renyi", "privacy loss distribution"}
    assert all(one.source and one.low <= one.high for one in every)


def test_an_accountant_that_is_off_or_fails_does_not_hold(monkeypatch):
    cheap = [one for one in golden.values() if "closed form: order" in one.source]
    monkeypatch.setattr(golden, "values", lambda: iter(cheap))
    assert all(one.holds for one in golden.check())
    original = accounting.curve
    monkeypatch.setattr(accounting, "curve", lambda *given: tuple(k * 99 // 100 for k in original(*given)))
    assert not any(one.holds for one in golden.check())

    def broken(*given):
        raise ImportError("no such package")

    monkeypatch.setattr(accounting, "curve", broken)
    assert not any(one.holds for one in golden.check())
