"""The published schemas of statements are those of the code."""

import json
from pathlib import Path

import pytest

from domain.statements.models import BudgetStatement, JobStatement, schema

FOLDER = Path(__file__).parents[1] / "docs" / "schemas"
PUBLISHED: dict[str, type[JobStatement] | type[BudgetStatement]] = {
    "statement-job.json": JobStatement,
    "statement-budget.json": BudgetStatement,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_schema_is_that_of_the_code(name: str) -> None:
    """To write them anew: `python -m tests.test_schemas`."""
    assert json.loads((FOLDER / name).read_text()) == schema(PUBLISHED[name])


if __name__ == "__main__":
    for file, kind in PUBLISHED.items():
        (FOLDER / file).write_text(json.dumps(schema(kind), indent=1, ensure_ascii=False) + "\n")
