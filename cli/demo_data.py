"""Made-up patient diary notes for the demo: is someone getting better or worse?

No word gives the answer away: a complaint may grow or fade, and a strength may grow or fade. The class lies in the
combination, so a model must learn it. Names make the notes look like what they stand for: data that must not leak.
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
TIMES = ("this morning", "at night", "after lunch", "in the evening", "on the stairs", "at work", "after the walk")
COMPLAINTS = (
    *("pain in the knee", "back pain", "headache", "cough", "fever", "swelling", "nausea", "dizziness", "rash"),
    *("stiffness in the neck", "shortness of breath", "tiredness", "itching", "toothache", "anxiety", "heartburn"),
)
STRENGTHS = (
    *("appetite", "sleep", "strength in the arm", "balance", "mood", "grip", "concentration", "energy", "hearing"),
    *("confidence", "eyesight", "walking distance", "memory", "patience with the exercises", "mobility of the hip"),
)
RISES = (
    *("has increased", "is growing", "is stronger than before", "has gone up", "keeps building", "is much greater"),
    *("has doubled", "rises day by day", "is clearly more than last week"),
)
FALLS = (
    *("has decreased", "is fading", "is weaker than before", "has gone down", "keeps shrinking", "is much smaller"),
    *("has halved", "drops day by day", "is clearly less than last week"),
)
FRAMES = (
    "{name} called on {day}: the {what} {how}, mostly {when}.",
    "Note for {day}: {name} says the {what} {how} {when}.",
    "{name} writes that the {what} {how} since {day}.",
    "Visit on {day}. {name} reports: the {what} {how} {when}.",
    "Since {day} the {what} {how}, {name} tells us.",
    "Phone call with {name}, {day}, {when}: the {what} {how}.",
)


def notes(count: int, seed: int = 1) -> list[tuple[str, str]]:
    """`count` different (text, label) pairs, both labels equally often."""
    draw = random.Random(seed)  # noqa: S311  (made-up data, no secret)
    made: dict[str, str] = {}
    while len(made) < count:
        label = LABELS[len(made) % 2]
        of_complaint, rising = draw.random() < 0.5, (draw.random() < 0.5)
        if (of_complaint == rising) != (label == "worse"):
            rising = not rising
        text = draw.choice(FRAMES).format(
            name=draw.choice(NAMES),
            day=draw.choice(DAYS),
            when=draw.choice(TIMES),
            what=draw.choice(COMPLAINTS if of_complaint else STRENGTHS),
            how=draw.choice(RISES if rising else FALLS),
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
