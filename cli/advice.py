"""What an estimate guesses of a result, for people."""

from typing import Any

from domain.kit import share_words

COLUMNS = ["share", "accuracy", "gain"]


def in_words(advice: dict[str, Any]) -> str:
    """What may come out, what it would take not to learn, and what would help."""
    said = [f"What may come out, a guess: {_guess(advice['expected'])}."]
    least = advice["least_share"]
    if least is not None and least > 1:
        said.append("With these steps and this batch, learning is unlikely even for the whole budget.")
    elif least is not None:
        least_share = share_words.percent(share_words.up(least))
        said.append(f"Below {least_share} of the budget learning is unlikely.")
    more = f"With twice the rows: {_guess(advice['twice_the_rows'])}"
    if advice["twice_the_steps"] is not None:
        more += f"; with twice the steps: {_guess(advice['twice_the_steps'])}"
    return " ".join([*said, f"{more}."])


def _guess(guess: dict[str, Any]) -> str:
    return f"accuracy {guess['accuracy']:.2f}, {guess['gain']:.0%} of what training without privacy would gain"
