"""Pictures that nobody vouches for: read out of archives and tables, decoded within bounds, made plain, recognised.

All of it runs in the check's own process alone (`domain/ingest/__main__.py`); nothing is written to a disk but the rows
that are kept.
"""
