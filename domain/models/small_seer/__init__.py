"""A model that sees, for walks and tests; README.md in `model/` says what it is and how it was made."""
