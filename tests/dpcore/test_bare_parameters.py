"""Parameters that no layer holds: gates behind functions, tokens, tables, matrices put together; exact or an error."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dpcore.engine import layout
from dpcore.engine.per_example import PerExample

from .architectures import alone
from .engine_rows import flat_rows, rows_of

M, T, D = 4, 6, 5


class Uses(nn.Module):
    """One way of using bare parameters between two layers that the engine knows."""

    def __init__(self, use: str) -> None:
        super().__init__()
        self.use = getattr(self, use.replace(" ", "_"))
        self.layer = nn.Linear(D, D)
        shapes = {
            "gate": (),
            "one": (1,),
            "gain": (D,),
            "token": (1, 1, D),
            "table": (1, T, D),
            "mix": (3,),
            "w": (D, D),
        }
        used = self.use.__code__.co_names
        for name, shape in shapes.items():
            if name in used:
                setattr(self, name, nn.Parameter(torch.randn(shape)))
        self.register_buffer("scale", torch.rand(D))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.layer(self.use(torch.tanh(self.layer(x))))).square().flatten(1).sum(1)

    def sigmoid_gate(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate / 0.1)
        return gate * x + (1 - gate) * x.flip(1)

    def gate_in_brackets(self, x: Tensor) -> Tensor:
        return x.flip(1) * (1 - torch.sigmoid(self.one)) - self.one / x.square().add(1)

    def softmax_of_stack(self, x: Tensor) -> Tensor:
        parts = torch.stack([self.gate, self.gate.square(), self.one[0]]).softmax(0)
        return parts[0] * x + parts[1] * x.flip(1) + x * parts[2]

    def gate_used_twice(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate)
        return gate * x + x.flip(1) / gate

    def scaled_offset(self, x: Tensor) -> Tensor:
        return torch.add(x, self.gain, alpha=0.5) * torch.sub(x.flip(1), self.gain, alpha=3)

    def away_from_a_buffer(self, x: Tensor) -> Tensor:
        return torch.lerp(self.scale, x, self.gain)

    def mixture(self, x: Tensor) -> Tensor:
        first, second, _ = F.softmax(self.mix, dim=0).unbind()
        return torch.lerp(x, x.flip(1), first) - second * x

    def gain_plus_one(self, x: Tensor) -> Tensor:
        return x * (1.0 + self.gain.float().double()) / self.scale

    def gain_and_buffer(self, x: Tensor) -> Tensor:
        return (self.gain * self.scale).exp() * x

    def class_token(self, x: Tensor) -> Tensor:
        return torch.cat((self.token.expand(len(x), -1, -1), x), dim=1)

    def token_of_tokens(self, x: Tensor) -> Tensor:
        return torch.cat((torch.tanh(self.token)[0, 0].expand((len(x), 2, D)), x), dim=1)

    def positions(self, x: Tensor) -> Tensor:
        return x + self.table

    def part_of_positions(self, x: Tensor) -> Tensor:
        return x[:, 1:4] + self.table[:, :3] + x[:, 2:5] * self.table[0, 3:6]

    def rms_norm(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (D,), self.gain) + F.rms_norm(x, (D,), 1 + self.gain, 1e-3)

    def sliced_matrix(self, x: Tensor) -> Tensor:
        return F.linear(x, self.w[:, 2:] @ self.w[2:], self.layer.bias * 2)

    def normalised_table(self, x: Tensor) -> Tensor:
        return x + F.embedding(torch.arange(T).expand(len(x), -1) % D, F.normalize(self.w, dim=0))


USES = [name.replace("_", " ") for name in vars(Uses) if not name.startswith("_") and name != "forward"]


def make(use: str) -> tuple[Uses, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Uses(use).double(), torch.randn(M, T, D, dtype=torch.float64)


@pytest.mark.parametrize("recomputed", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("side", [64, 2])
@pytest.mark.parametrize("use", USES)
def test_each_example_has_its_own_gradient(monkeypatch, use, side, recomputed):
    monkeypatch.setattr(layout, "THIN_SIDE", side)
    model, x = make(use)
    engine, runs, use = PerExample(model), [], model.use
    if recomputed:
        model.use = lambda x: checkpoint(
            lambda x: runs.append(1) or use(x), x, use_reentrant=False, context_fn=engine.recomputing
        )
    expected = flat_rows(engine, alone(model, lambda i: model(x[i]), M))
    assert all((expected[:, engine._layout.place(p)] != 0).any() for p in model.parameters())
    runs.clear()
    for _ in range(2):
        gradients = engine.gradients(lambda: model(x), M)
        torch.testing.assert_close(rows_of(gradients, engine, M), expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(gradients.norms(), expected.norm(dim=1), rtol=1e-9, atol=0)
    assert all(p.grad is None for p in model.parameters())
    assert len(runs) <= 2 * 2, "once for each pass, and not again for what is made of parameters"
