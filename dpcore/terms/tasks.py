"""The kinds of task: what a record of a file holds, and what a model learns from it."""

from typing import Literal

TaskKind = Literal["classification", "pair", "completion", "chat", "text"]

CAUSAL_LM: frozenset[TaskKind] = frozenset({"completion", "chat", "text"})
"""Kinds whose records teach a language model to write; the others have one of a public set of labels each."""
