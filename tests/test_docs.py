"""What the docs name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = {path.relative_to(ROOT / "tests").as_posix(): path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
NAMED = re.compile(r"`(?:tests/)?((?:\w+/)*test_\w+\.py)?(?:::)?(test_\w+)?(?:\[[^`]*)?`")


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_the_tests_that_a_page_names_exist(page: Path) -> None:
    """A pitfall whose test was renamed or never written is a promise that nothing holds."""
    gone = []
    for file, test in NAMED.findall(page.read_text()):
        where = [text for name, text in TESTS.items() if not file or name == file or name.endswith(f"/{file}")]
        if (file or test) and not any(not test or re.search(rf"def {test}\b", text) for text in where):
            gone.append(f"{file}::{test}")
    assert gone == []
