"""The stream of noise made on a device: the library's bits, whoever computes them, and the same numbers from them."""

import os
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from dpcore.mechanism import chacha20, keystream, noise
from dpcore.mechanism.keystream import Keystream, Streams

HERE = torch.device("cpu")
ROOT = Path(__file__).parents[2]
STARTS = (0, 1, 2**31 - 7, 2**32 - 2**14)


def library(key: bytes, first: int, count: int) -> bytes:
    return Cipher(ChaCha20(key, struct.pack("<QQ", first, 0)), mode=None).encryptor().update(bytes(64 * count))


def test_the_first_block_is_the_one_that_is_published() -> None:
    """RFC 8439, appendix A.1, the first vector."""
    made = chacha20.blocks(bytes(32), 0, 1, HERE).numpy().tobytes()
    assert made[:32].hex() == "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"


@pytest.mark.sampled(4)
@pytest.mark.parametrize("number", range(64))
def test_blocks_are_the_librarys(number: int) -> None:
    """All cases together are 2^20 blocks, of 64 keys."""
    key, first = os.urandom(32), STARTS[number % len(STARTS)]
    made = chacha20.blocks(key, first, 2**14, HERE)
    assert made.numpy().tobytes() == library(key, first, 2**14)


def test_a_stream_ends_and_a_key_has_its_length() -> None:
    with pytest.raises(ValueError, match="blocks"):
        chacha20.blocks(bytes(32), 2**32 - 1, 2, HERE)
    with pytest.raises(ValueError, match="32 bytes"):
        chacha20.blocks(bytes(16), 0, 1, HERE)


KERNEL = """
import os, torch
from dpcore.mechanism import chacha20, chacha20_kernel
for first, count in ((0, 512), (2**31 - 7, 300), (2**32 - 212, 212)):
    key = os.urandom(32)
    one, other = (of.blocks(key, first, count, torch.device("cpu")) for of in (chacha20, chacha20_kernel))
    assert torch.equal(one, other), first
"""


def test_the_kernels_blocks_are_the_same() -> None:
    """Under Triton's interpreter: 2^10 blocks, among them those whose numbers end within a program's."""
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, "-c", KERNEL], check=True, env=environment, cwd=ROOT)


def test_a_stream_gives_the_same_integers_here_and_on_a_device_and_is_read_on_one_side() -> None:
    here, there = (Streams(test_secret=b"sides").at("noise", 3) for _ in range(2))
    pieces = (1, 7, 8, 100, 3, 64, 1001)
    expected = np.concatenate([here.integers(count) for count in pieces])
    made = torch.cat([there.integers_on(HERE, count) for count in pieces])
    assert made.numpy().tobytes() == expected.tobytes()
    with pytest.raises(ValueError, match="device"):
        there.integers(1)
    with pytest.raises(ValueError, match="here"):
        here.integers_on(HERE, 1)


def test_normals_are_the_same_from_both_to_the_last_bit() -> None:
    """Of one device's logarithm, sine and cosine."""
    edges = np.array([0, 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 2**10 - 1, 2**64 - 1], dtype=np.uint64)
    drawn = np.concatenate([edges, Keystream(bytes(range(32))).integers(10**5)])
    signed = torch.from_numpy(drawn.view(np.int64).copy())
    assert torch.equal(noise.rounded(signed), torch.from_numpy(drawn.astype(np.float64)))
    key = os.urandom(32)
    plain = torch.cat(list(noise.gaussian(Keystream(key), 2**18 + 12_345)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(noise, "_HERE", "nowhere")
        made = torch.cat(list(noise.gaussian(Keystream(key), 2**18 + 12_345)))
    assert torch.equal(plain, made)


@pytest.mark.parametrize("kernel", ["right", "wrong", "does not compile"])
def test_a_kernel_is_used_where_it_is_right_on_the_machine(kernel: str) -> None:
    """Before the first number of a stream; without it noise is torch's arithmetic."""

    def blocks(key: bytes, first: int, count: int, device: torch.device) -> torch.Tensor:
        if kernel == "does not compile":
            raise RuntimeError("no driver")
        made = chacha20.blocks(key, first, count, HERE)
        return made ^ 1 if kernel == "wrong" else made

    fake = SimpleNamespace(blocks=blocks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keystream, "find_spec", lambda name: name)
        patch.setitem(sys.modules, "dpcore.mechanism.chacha20_kernel", fake)  # type: ignore[arg-type]
        patch.setattr("dpcore.mechanism.chacha20_kernel", fake, raising=False)
        chosen = keystream._cipher_on.__wrapped__("cuda")
    assert chosen is (fake if kernel == "right" else chacha20)
