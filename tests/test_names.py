"""One name for one thing: no two public classes or types of the product share a name."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("api", "worker", "dpcore", "ledger", "domain", "cli", "migrations")
SHARED = {
    # Every method's own, asked for by the Protocol under these names.
    "Options": "what a caller may choose",
    "Request": "the numbers that a caller may ask for",
    "Hyperparameters": "the same, resolved",
    # Two sides of one thing: what dpcore.terms says of it, and what computes it.
    "Estimator": "any of the two below, and the protocol of both",
    "FirstOrder": "clipped gradients",
    "ZerothOrder": "clipped scalars of forward passes",
    "Delta": "how far local training moves the weights",
    "Local": "how far each user's own training moves them",
    "Histogram": "how often each token stands in users' records",
    "Measurement": "how held-out units score",
    "Records": "what an estimator asks of a file's records, and the texts that answer it",
}


def _named(node: ast.stmt) -> str | None:
    """The public class or type that a statement defines, in either spelling."""
    if isinstance(node, ast.ClassDef):
        return node.name if not node.name.startswith("_") else None
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        name = node.targets[0].id
        made_by = node.value.func if isinstance(node.value, ast.Call) else None
        of_one_file = isinstance(made_by, ast.Name) and made_by.id in ("TypeVar", "ParamSpec")
        return name if name[0].isupper() and not name.isupper() and not of_one_file else None
    return None


def shared(root: Path) -> dict[str, list[str]]:
    """Names that are defined in more than one module, and in which."""
    found = defaultdict(list)
    for room in ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            for node in ast.parse(path.read_text()).body:
                if name := _named(node):
                    found[name].append(f"{path.relative_to(root)}:{node.lineno}")
    return {name: places for name, places in found.items() if len(places) > 1}


def test_a_name_stands_for_one_thing() -> None:
    """Who reads `Receipt` must not have to ask which of three it is."""
    found = shared(ROOT)
    assert {name: places for name, places in found.items() if name not in SHARED} == {}
    assert sorted(SHARED.keys() - found.keys()) == []  # an exception that nobody needs any more
