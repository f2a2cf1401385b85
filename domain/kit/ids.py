"""Identifiers: random, so that one tells nothing about another; the prefix tells what it names."""

import secrets


def new_id(kind: str, separator: str = "_") -> str:
    """`<kind><separator><32 hex digits>`; OpenAI's shapes use '-' for files and jobs."""
    return f"{kind}{separator}{secrets.token_hex(16)}"
