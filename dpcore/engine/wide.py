"""Wide matrices: the gradients of all examples, without storing them, by book-keeping.

A gradient is a sum over tokens of outer products, left_t right_t^T: output gradients and inputs of a linear layer. An
embedding's left is one-hot and kept as its token numbers. From these pieces follow the norm, by Gram matrices, and the
clipped sum, by one product with the factors folded in (Li et al. 2022; Bu et al. 2023). Once the tokens are so many
that the gradients themselves cost less, they are computed and the pieces dropped.
"""

from math import sqrt

import torch
from torch import Tensor

from dpcore.engine.rows import Rows, select

ROUNDING = 32
"""In machine epsilons: what a squared norm is raised by, relative to the square that the outer products would have if
none cancelled another. Rounding must not make a norm too small, and a cancelled sum keeps the error of its terms."""


def most_tokens(rows: int, columns: int) -> float:
    """Tokens of an example above which its gradient is computed: with h = pd / (p + d), 10 sqrt(h), within [h / 2, h].

    Keeping the pieces takes T (p + d) numbers and 2 T^2 (p + d) operations more; the gradient takes pd numbers, read
    and written thrice. Arithmetic alone changes over near 10 sqrt(h) on a processor. Above h the gradient is smaller
    too; below h / 2 it is not worth its memory.
    """
    half = rows * columns / (rows + columns)
    return min(half, max(half / 2, 10 * sqrt(half)))


class Wide:
    """Gradients [m, rows, columns] of one matrix in a micro-batch; every use of the matrix adds to them."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self._shape = shape
        self._most_tokens = most_tokens(*shape)
        self._left: list[Tensor] = []
        self._right: list[Tensor] = []
        self._tokens: list[Tensor] = []
        self._looked_up: list[Tensor] = []
        self._whole: Tensor | None = None
        self._merged: _Merged | None = None

    def add_products(self, left: Tensor, right: Tensor) -> None:
        """Add left^T right: [m, T, rows] and [m, T, columns]."""
        self._left.append(left)
        self._right.append(right)
        if self._whole is not None or sum(part.shape[1] for part in self._left) > self._most_tokens:
            for a, b in zip(self._left, self._right, strict=True):
                self.add_whole(torch.bmm(a.transpose(1, 2), b))
            self._left, self._right = [], []

    def add_lookups(self, tokens: Tensor, rows: Tensor) -> None:
        """Add `rows` [m, S, columns] to the rows of the matrix that `tokens` [m, S] name."""
        self._tokens.append(tokens)
        self._looked_up.append(rows)

    def add_whole(self, gradients: Tensor) -> None:
        """Add gradients [m, rows, columns]."""
        self._whole = gradients if self._whole is None else self._whole + gradients

    def norms(self) -> Tensor:
        """L2 norm of each example's gradient: [m]. Nothing can be added after that."""
        if self._whole is not None:
            for tokens, rows in zip(self._tokens, self._looked_up, strict=True):
                examples = torch.arange(len(tokens), device=tokens.device).unsqueeze(1)
                self._whole.index_put_((examples, tokens), rows, accumulate=True)
            self._tokens, self._looked_up = [], []
            return Rows(self._whole.flatten(1)).norms()
        self._left, self._right = _joined(self._left), _joined(self._right)
        self._tokens, self._looked_up = _joined(self._tokens), _joined(self._looked_up)
        squares, uncancelled = [], []
        for left, right in zip(self._left, self._right, strict=True):
            a, b = left @ left.transpose(1, 2), right @ right.transpose(1, 2)
            uncancelled.append((a.diagonal(dim1=1, dim2=2) * b.diagonal(dim1=1, dim2=2)).sqrt().sum(1))
            squares.append(a.mul_(b).sum((1, 2)))
        for tokens, rows in zip(self._tokens, self._looked_up, strict=True):
            self._merged = _Merged(tokens, rows, self._shape[0])
            uncancelled.append(rows.norm(dim=2).sum(1))
            squares.append(self._merged.squares(len(tokens)))
            for left, right in zip(self._left, self._right, strict=True):
                squares.append(_cross(left, right, tokens, rows))
        # Only _cross needs the rows one by one.
        self._tokens, self._looked_up = [], []
        bound = torch.stack(uncancelled).sum(0).square()
        square = torch.stack(squares).sum(0) + ROUNDING * torch.finfo(bound.dtype).eps * bound
        return square.clamp(min=0).sqrt()

    def add_weighted(self, value: Tensor, factors: Tensor) -> None:
        """Add the sum of factors [m] times the gradients to `value`, float64 [rows * columns], after `norms`."""
        if self._whole is not None:
            Rows(self._whole.flatten(1)).add_weighted(value, factors)
            return
        matrix = value.view(self._shape)
        for all_left, all_right in zip(self._left, self._right, strict=True):
            left, kept = select(factors, all_left)
            right, _ = select(factors, all_right)
            scale = kept[:, None, None]
            # The narrower of the two takes the factors: a head's other side is as wide as the vocabulary.
            left, right = (left * scale, right) if left.shape[2] < right.shape[2] else (left, right * scale)
            matrix.add_(left.flatten(0, 1).T @ right.flatten(0, 1))
        if self._merged is not None:
            self._merged.add_weighted(matrix, factors)


class _Merged:
    """Rows looked up by the same example and token, summed: never a gradient of the size of the vocabulary."""

    def __init__(self, tokens: Tensor, rows: Tensor, vocabulary: int) -> None:
        first = torch.arange(len(tokens), device=tokens.device).unsqueeze(1) * vocabulary
        pairs, where = (tokens + first).unique(return_inverse=True)  # type: ignore[no-untyped-call]
        self._examples, self._tokens = pairs // vocabulary, pairs % vocabulary
        self._sums = rows.new_zeros(len(pairs), rows.shape[2]).index_add_(0, where.flatten(), rows.flatten(0, 1))

    def squares(self, examples: int) -> Tensor:
        """Squared norm of each example's gradient: [m]."""
        squares = self._sums.square().sum(1, dtype=torch.float64)
        return squares.new_zeros(examples).index_add_(0, self._examples, squares).to(self._sums.dtype)

    def add_weighted(self, matrix: Tensor, factors: Tensor) -> None:
        """Add the sum of factors [m] times the gradients to `matrix`, float64 [vocabulary, columns]."""
        each = factors[self._examples]
        sums, kept = select(each, self._sums)
        tokens, _ = select(each, self._tokens)
        matrix.index_add_(0, tokens, (sums * kept[:, None]).to(matrix.dtype))


def _cross(left: Tensor, right: Tensor, tokens: Tensor, rows: Tensor) -> Tensor:
    """Twice the inner product of a matrix's gradient as a head with that as an embedding: [m].

    2 sum_{t, s} left_t[token_s] <right_t, row_s>: a weight tied to both has the square of their sum as its norm.
    """
    at_tokens = left.gather(2, tokens.unsqueeze(1).expand(-1, left.shape[1], -1))
    return 2 * (at_tokens * (right @ rows.transpose(1, 2))).sum((1, 2))


def _joined(parts: list[Tensor]) -> list[Tensor]:
    """All uses of the matrix as one, side by side along the tokens; nothing where there is none."""
    return [torch.cat(parts, dim=1)] if len(parts) > 1 else parts
