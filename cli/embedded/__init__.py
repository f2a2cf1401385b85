"""Postgres, Redis, the worker and the API as processes of one machine, without containers."""
