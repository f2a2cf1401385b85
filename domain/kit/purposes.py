"""What a file is for; it says who may read it."""

PRIVATE = "fine-tune"
"""Rows under a budget."""
PUBLIC = "evals"
"""Rows that were public from upload on."""
RESULT = "fine-tune-results"
"""What a job released."""
