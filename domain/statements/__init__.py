"""Statements for people who must answer for a release: what is claimed of a job or a budget, bound and signed, and how
that is checked without the service."""
