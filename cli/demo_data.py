"""Made-up patient diary notes for the demo: is someone getting better or worse?

Thirty ways of saying so carry the class; names, days and parts of the body say nothing about it. Names make the notes
look like what they stand for: data that must not leak.
"""

import csv
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

LABELS = ("better", "worse")
NAMES = (
    *("Ada", "Amir", "Anna", "Boris", "Carla", "Chen", "Dana", "Diego", "Elif", "Emma"),
    *("Farah", "Felix", "Grace", "Hana", "Hugo", "Ines", "Ivan", "Jana", "Jonas", "Kofi"),
    *("Lara", "Leon", "Lucia", "Maja", "Mateo", "Mina", "Nadia", "Nils", "Olga", "Omar"),
    *("Paula", "Priya", "Rosa", "Samir", "Sara", "Sven", "Tariq", "Vera", "Wei", "Yara"),
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
PARTS = (
    *("knee", "back", "shoulder", "hip", "stomach", "throat", "wrist", "neck", "ankle", "elbow", "ear", "chest"),
    *("left hand", "right foot", "lower leg", "skin", "jaw", "heel"),
)
STATES = {
    "better": (
        *("is healing nicely", "feels fine again", "has recovered", "is free of pain", "works well again"),
        *("gets stronger every day", "is much better", "has calmed down", "is almost normal", "no longer hurts"),
        *("moves easily now", "looks healthy", "has improved a lot", "is comfortable", "gives no more trouble"),
    ),
    "worse": (
        *("is swollen and sore", "hurts terribly", "has got infected", "is in constant pain", "keeps failing"),
        *("gets weaker every day", "is much worse", "has flared up", "is almost useless", "will not stop aching"),
        *("can hardly move now", "looks inflamed", "has worsened a lot", "is unbearable", "burns all night"),
    ),
}
FRAMES = (
    "{name} on {day}: the {part} {state}.",
    "{day}: {name} says the {part} {state}.",
    "The {part} of {name} {state} since {day}.",
    "{name} called, the {part} {state} ({day}).",
)


def notes(count: int, seed: int = 1) -> list[tuple[str, str]]:
    """`count` different (text, label) pairs, both labels equally often."""
    draw = random.Random(seed)  # noqa: S311  (made-up data, no secret)
    made: dict[str, str] = {}
    while len(made) < count:
        label = LABELS[len(made) % 2]
        text = draw.choice(FRAMES).format(
            name=draw.choice(NAMES), day=draw.choice(DAYS), part=draw.choice(PARTS), state=draw.choice(STATES[label])
        )
        made.setdefault(text, label)
    rows = list(made.items())
    draw.shuffle(rows)
    return rows


def write(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """A CSV file with the columns text and label."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        writer.writerows(rows)
