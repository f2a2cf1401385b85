"""A service to measure, and what asks it."""
