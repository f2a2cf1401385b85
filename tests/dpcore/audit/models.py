"""Little models that bring out a fault."""

from pathlib import Path

from safetensors.torch import load_file, save_file

from dpcore.audit import little

_LOUD, _QUIET = 100.0, 0.05


def loud_head(folder: Path) -> Path:
    """A writer whose tied weight pulls far harder as a head than everything else together: with small words little comes
    back from the head, and large positions make what lies below the last norm quiet."""
    little.write(folder, "text")
    file = folder / "model.safetensors"
    weights = load_file(file)
    for name, by in (("wpe.weight", _LOUD), ("wte.weight", _QUIET)):
        (whole,) = [one for one in weights if one.endswith(name)]
        weights[whole] = weights[whole] * by
    save_file(weights, file, metadata={"format": "pt"})
    return folder
