"""Little models that bring out a fault."""

from pathlib import Path

from safetensors.torch import load_file, save_file

from dpcore.audit import little

_LOUD = 100.0


def loud_head(folder: Path) -> Path:
    """A writer whose tied weight pulls far harder as a head than as an embedding: large positions make what lies below
    the last norm quiet."""
    little.write(folder, "text")
    file = folder / "model.safetensors"
    weights = load_file(file)
    (name,) = [name for name in weights if name.endswith("wpe.weight")]
    weights[name] = weights[name] * _LOUD
    save_file(weights, file, metadata={"format": "pt"})
    return folder
