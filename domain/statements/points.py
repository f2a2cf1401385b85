"""What a claim of privacy must state, point by point, and where a job's statement does."""

from domain.statements.models import StatedPoint
from domain.statements.words import NOT_RECORDED


def points(
    *, quality: bool, by_group: bool, published: bool, versions: bool, sampled: bool, odds: bool, audited: bool
) -> list[StatedPoint]:
    """The table of 22 points, of a statement of which these are known. published: whether it is on record what the
    steward published by decision."""

    def known(yes: bool) -> str:
        return "stated" if yes else NOT_RECORDED

    rows = (
        ("epsilon, with a caution how to take it", "stated", "claim", ""),
        (
            "the variant of differential privacy with all its parameters, so that others can convert",
            "stated",
            "claim, account.filter, phases",
            "orders, weights, the cost at each order, and noise and rate of each phase",
        ),
        (
            "delta, and no mechanism that fails catastrophically with it",
            "stated",
            "claim",
            "only Gaussian noise is used",
        ),
        (
            "the unit and the exact neighbouring relation; why no larger unit",
            "stated",
            "unit",
            f"why this unit was chosen: {NOT_RECORDED}",
        ),
        ("the bound on what one person adds, and whether it resets", "stated", "unit.bound", "it never resets"),
        ("which harms the unit covers, and which not", "in words", "unit.covers, unit.leaves_out", ""),
        ("the total budget, over all analyses of the data", "stated", "account, budget_odds", ""),
        (
            "other releases about the same people that are not private",
            NOT_RECORDED,
            "limits",
            "the service knows of its own releases alone",
        ),
        ("mechanism, sensitivity, and tested libraries with versions", known(versions), "phases, versions", ""),
        ("utility, with a confidence interval", known(quality), "quality", ""),
        ("bias: small groups, human and statistical", "in words" if not by_group else "stated", "quality, limits", ""),
        (
            "what was public of the data beforehand, and what was published by decision",
            known(published),
            "domain",
            "",
        ),
        ("for learning: how it was trained, and what that says of memorising", "in words", "phases, limits", ""),
        ("what a unit of free text is", "in words", "unit.sentence", ""),
        (
            "for synthetic data: whether it is private",
            "stated" if sampled else "does not apply",
            "synthetic",
            "",
        ),
        ("who may ask, what is refused, and malicious analysts", "in words", "trust", ""),
        (
            "whom one must trust, and whether that holds",
            "in words",
            "trust",
            "the reader judges whether it holds",
        ),
        ("floating point, random numbers, timing", "in words", "limits", ""),
        ("security at rest and in use", "in words", "handling", ""),
        ("access control", "in words", "handling", ""),
        ("minimisation and retention", "in words", "handling", ""),
        (
            "tests of the implementation, and empirical checks of this release",
            "stated" if audited else "in words",
            "handling, odds, audit" if audited else "handling, odds",
            ("odds from the privacy loss distribution; " if odds else "")
            + ("an audit of this training, on made-up units" if audited else "no audit before this very release"),
        ),
    )
    return [
        StatedPoint(number=number, what=what, stands=stands, where=where, note=note)  # type: ignore[arg-type]
        for number, (what, stands, where, note) in enumerate(rows, 1)
    ]
