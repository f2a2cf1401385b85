"""No test asserts a time through Hypothesis: a property is not wrong because a machine is busy."""

import hypothesis


def test_no_property_has_a_deadline() -> None:
    assert hypothesis.settings().deadline is None
