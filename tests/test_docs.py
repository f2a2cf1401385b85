"""What the docs name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
TESTS = {path.relative_to(ROOT / "tests").as_posix(): path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
TEST = re.compile(r"\b(?:tests/)?((?:\w+/)*test_\w+\.py)?(?:::)?(test_\w+)?")
PLACE = re.compile(
    r"`((?:api|benchmarks|cli|deploy|docs|domain|dpcore|ledger|migrations|tests|worker)/[\w./-]*)(?:::\w+)?`"
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tests_that_a_page_names_exist(page: Path) -> None:
    """A pitfall whose test was renamed or never written is a promise that nothing holds."""
    gone = []
    for file, test in TEST.findall(page.read_text()):
        where = [text for name, text in TESTS.items() if not file or name == file or name.endswith(f"/{file}")]
        if (file or test) and not any(not test or re.search(rf"def {test}\b", text) for text in where):
            gone.append(f"{file}::{test}")
    assert gone == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    """Whoever follows a checklist must find the place. Those of tests may begin below tests/."""
    named = PLACE.findall(page.read_text())
    assert [place for place in named if not any((top / place).exists() for top in (ROOT, ROOT / "tests"))] == []
