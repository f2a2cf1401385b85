"""The same blocks by one Triton kernel: a launch in place of hundreds, and nothing of the state leaves the registers.
Loaded only where Triton is."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from dpcore.mechanism.chacha20 import CONSTANTS, WORDS, require_left, words_of

_AT_ONCE = 128
"""Blocks of a program."""
_C0, _C1, _C2, _C3 = (tl.constexpr(word & 0xFFFFFFFF) for word in CONSTANTS)


def blocks(key: bytes, first: int, count: int, device: torch.device) -> Tensor:
    """As `chacha20.blocks` has them."""
    require_left(first, count)
    found = torch.empty(count, WORDS, dtype=torch.int32, device=device)
    secret = torch.tensor(words_of(key), dtype=torch.int32, device=device)
    if count:
        _fill[(triton.cdiv(count, _AT_ONCE),)](found, secret, first, count, _AT_ONCE)
    return found


@triton.jit
def _turned(word: tl.tensor, by: tl.constexpr) -> tl.tensor:
    return (word << by) | (word >> (32 - by))


@triton.jit
def _quarter(a: tl.tensor, b: tl.tensor, c: tl.tensor, d: tl.tensor) -> tl.tuple:
    a = a + b
    d = _turned(d ^ a, 16)
    c = c + d
    b = _turned(b ^ c, 12)
    a = a + b
    d = _turned(d ^ a, 8)
    c = c + d
    b = _turned(b ^ c, 7)
    return a, b, c, d


@triton.jit
def _fill(found: tl.tensor, secret: tl.tensor, first: tl.tensor, count: tl.tensor, at_once: tl.constexpr) -> None:
    number = tl.program_id(0) * at_once + tl.arange(0, at_once)
    none = tl.zeros([at_once], dtype=tl.uint32)
    s0, s1, s2, s3 = none + _C0, none + _C1, none + _C2, none + _C3
    s4, s5 = none + tl.load(secret).to(tl.uint32), none + tl.load(secret + 1).to(tl.uint32)
    s6, s7 = none + tl.load(secret + 2).to(tl.uint32), none + tl.load(secret + 3).to(tl.uint32)
    s8, s9 = none + tl.load(secret + 4).to(tl.uint32), none + tl.load(secret + 5).to(tl.uint32)
    s10, s11 = none + tl.load(secret + 6).to(tl.uint32), none + tl.load(secret + 7).to(tl.uint32)
    s12 = (first + number.to(tl.int64)).to(tl.uint32)
    x0, x1, x2, x3, x4, x5, x6, x7 = s0, s1, s2, s3, s4, s5, s6, s7
    x8, x9, x10, x11, x12, x13, x14, x15 = s8, s9, s10, s11, s12, none, none, none
    for _ in range(10):
        x0, x4, x8, x12 = _quarter(x0, x4, x8, x12)
        x1, x5, x9, x13 = _quarter(x1, x5, x9, x13)
        x2, x6, x10, x14 = _quarter(x2, x6, x10, x14)
        x3, x7, x11, x15 = _quarter(x3, x7, x11, x15)
        x0, x5, x10, x15 = _quarter(x0, x5, x10, x15)
        x1, x6, x11, x12 = _quarter(x1, x6, x11, x12)
        x2, x7, x8, x13 = _quarter(x2, x7, x8, x13)
        x3, x4, x9, x14 = _quarter(x3, x4, x9, x14)
    here, inside = found + number * 16, number < count
    tl.store(here, (x0 + s0).to(tl.int32), mask=inside)
    tl.store(here + 1, (x1 + s1).to(tl.int32), mask=inside)
    tl.store(here + 2, (x2 + s2).to(tl.int32), mask=inside)
    tl.store(here + 3, (x3 + s3).to(tl.int32), mask=inside)
    tl.store(here + 4, (x4 + s4).to(tl.int32), mask=inside)
    tl.store(here + 5, (x5 + s5).to(tl.int32), mask=inside)
    tl.store(here + 6, (x6 + s6).to(tl.int32), mask=inside)
    tl.store(here + 7, (x7 + s7).to(tl.int32), mask=inside)
    tl.store(here + 8, (x8 + s8).to(tl.int32), mask=inside)
    tl.store(here + 9, (x9 + s9).to(tl.int32), mask=inside)
    tl.store(here + 10, (x10 + s10).to(tl.int32), mask=inside)
    tl.store(here + 11, (x11 + s11).to(tl.int32), mask=inside)
    tl.store(here + 12, (x12 + s12).to(tl.int32), mask=inside)
    tl.store(here + 13, x13.to(tl.int32), mask=inside)
    tl.store(here + 14, x14.to(tl.int32), mask=inside)
    tl.store(here + 15, x15.to(tl.int32), mask=inside)
