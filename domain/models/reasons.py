"""Why a base model cannot be used, in words for everybody."""

from pathlib import Path

from pydantic import ValidationError

from dpcore.terms.reasons import shown


def of_files(error: Exception) -> str:
    """What an error says about a base model's files, which are public."""
    if isinstance(error, ValidationError):
        wrong = error.errors(include_input=False, include_url=False, include_context=False)[0]
        return f"config.json gives no usable {wrong['loc'][0] if wrong['loc'] else 'sizes'}"
    if isinstance(error, OSError) and error.strerror:
        return f"{Path(str(error.filename or 'a file')).name} cannot be read: {error.strerror}"
    if isinstance(error, OSError | ValueError | RuntimeError) and str(error).strip():
        return shown(str(error))
    return shown(f"{type(error).__name__}: {error}")
