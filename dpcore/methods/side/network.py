"""A frozen model with a narrow network beside it, and how to open a folder that holds one. Needs torch, transformers
and safetensors, nothing else.

from load import load
model = load("folder of the base model")  # left out: the hub's repository that tacit.json names
tokenizer = transformers.AutoTokenizer.from_pretrained("this folder")
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, GenerationConfig
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions, SequenceClassifierOutput

FLOAT32 = {"dtype" if transformers.__version__ >= "5" else "torch_dtype": torch.float32}
"""transformers before 4.56 knows the old name alone."""
HEAD_WIDTH = 16
"""Of an attention head; a network's width is a multiple of it."""
TEMPERATURE = 0.1
"""A gate lets sigmoid(a / TEMPERATURE) of the network's own state through: a small step of a moves it."""


def load(base: str | None = None, folder: str | Path = Path(__file__).parent) -> Any:
    """The fine-tuned model, in evaluation mode, float32. Raises ValueError for a base that the tensors do not fit."""
    folder = Path(folder)
    about = json.loads((folder / "tacit.json").read_text(encoding="utf-8"))
    trained = load_file(folder / "trained.safetensors")
    width = next(min(tensor.shape) for name, tensor in trained.items() if name.endswith("up.weight"))
    auto = AutoModel if about["labels"] else AutoModelForCausalLM
    revision = None if base else about["commit"]
    model = auto.from_pretrained(base or about["repository"] or about["base_model"], revision=revision, **FLOAT32)
    if (folder / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    model = classifier(model, width, about["labels"]) if about["labels"] else writer(model, width)
    wanted = {name: p.shape for name, p in model.named_parameters() if p.requires_grad}
    if wanted != {name: tensor.shape for name, tensor in trained.items()}:
        raise ValueError("this is not the base model of the folder: its side network has other tensors")
    model.load_state_dict(trained, strict=False)
    return model.eval()


def classifier(model: nn.Module, width: int, labels: Sequence[str]) -> nn.Module:
    """An encoder or a decoder, without its head, as a classifier of texts for these labels."""
    return Classifier(SideNetwork(model, width, causal=False), labels).eval()


def writer(model: Any, width: int) -> Any:
    """A causal language model with a network beside its layers: in place, its head and its `generate` are its own."""
    model.requires_grad_(False)
    network = SideNetwork(model.base_model, width, causal=True)
    setattr(model, model.base_model_prefix, network)
    if model.can_generate():
        model.generation_config.use_cache = False
    return model.eval()


class SideNetwork(nn.Module):
    """A frozen model, and a ladder of narrow layers that reads what its layers give; it stands where the model stood.

    No backward pass enters the frozen model, so nothing of it is kept but what the ladder reads: the embeddings' and
    each layer's output, [m, T, d]. The state z is [m, T, width] (Sung et al. 2022; DP-MemArc, Liu et al. 2024):

    z = Down_0(h_0);  z = Layer_l(mu z + (1 - mu) Down_l(h_l)), mu = sigmoid(gate_l / TEMPERATURE);  h_L + Up(z)

    Up starts at zero, so that training starts at the frozen model's own output. causal: no token looks ahead.
    """

    def __init__(self, frozen: Any, width: int, *, causal: bool) -> None:
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        self.config: Any = frozen.config
        # Keys and values of earlier tokens would be kept for the frozen layers alone.
        self.config.use_cache = False
        hidden, layers = int(self.config.hidden_size), int(self.config.num_hidden_layers)
        self.down = nn.ModuleList([nn.Linear(hidden, width, bias=False) for _ in range(layers + 1)])
        self.layers = nn.ModuleList([SideLayer(width, causal=causal) for _ in range(layers)])
        self.up = nn.Linear(width, hidden, bias=False)
        nn.init.zeros_(self.up.weight)

    def get_input_embeddings(self) -> nn.Module:
        """The frozen model's: transformers denies a language model its head where it finds none."""
        return self.frozen.get_input_embeddings()  # type: ignore[no-any-return]

    def forward(
        self, input_ids: Tensor | None = None, *, attention_mask: Tensor | None = None, **inputs: Any
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """last_hidden_state: the frozen model's, [m, T, d], changed by the network."""
        if inputs.get("past_key_values") is not None:
            raise ValueError("a side network keeps no keys and values of earlier tokens: leave use_cache out")
        wanted = inputs | {"output_hidden_states": True, "return_dict": True}
        with torch.no_grad():
            output = self.frozen(input_ids, attention_mask=attention_mask, **wanted)
            # Of one scale whatever the model, without which one layer's outliers would fill a clipped gradient.
            read = [F.layer_norm(hidden, hidden.shape[-1:]) for hidden in output.hidden_states]
        if len(read) != len(self.down):
            raise ValueError(f"the model gives {len(read)} hidden states, its configuration {len(self.layers)} layers")
        z = self.down[0](read[0])
        for down, layer, hidden in zip(self.down[1:], self.layers, read[1:], strict=True):
            z = layer(z, down(hidden), attention_mask)
        # Only this: hidden states in the output would outlive the forward pass.
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=output.last_hidden_state + self.up(z))


class SideLayer(nn.Module):
    """A gate, attention and a feed-forward part. Without biases and gains: those of the next matrix do as well.

    Kept for the backward pass are eleven numbers a token and unit of width, and no T x T matrix.
    """

    def __init__(self, width: int, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.gate = nn.Parameter(torch.zeros(()))
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.attended = nn.Linear(width, width, bias=False)
        self.inner = nn.Linear(width, 2 * width, bias=False)
        self.outer = nn.Linear(2 * width, width, bias=False)

    def forward(self, z: Tensor, read: Tensor, mask: Tensor | None) -> Tensor:
        """z, read: [m, T, width]; mask: [m, T], 0 on padding."""
        mu = torch.sigmoid(self.gate / TEMPERATURE)
        z = read + mu * (z - read)
        z = z + self.attended(self._attention(self.query_key_value(F.layer_norm(z, z.shape[-1:])), mask))
        # ReLU is its own memory of where it was zero.
        return z + self.outer(F.relu(self.inner(F.layer_norm(z, z.shape[-1:]))))  # type: ignore[no-any-return]

    def _attention(self, query_key_value: Tensor, mask: Tensor | None) -> Tensor:
        """[m, T, 3 width] to [m, T, width]."""
        m, length, _ = query_key_value.shape
        query, key, value = query_key_value.view(m, length, 3, -1, HEAD_WIDTH).permute(2, 0, 3, 1, 4)
        allowed = None if mask is None else self._allowed(mask)
        plain = self.causal and allowed is None
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, is_causal=plain)
        return out.transpose(1, 2).reshape(m, length, -1)

    def _allowed(self, mask: Tensor) -> Tensor | None:
        """Where a token may look, [m, 1, 1 or T, T]; None for everywhere before it."""
        real = mask[:, None, None, :] != 0
        if not self.causal:
            return real
        if not bool((mask[:, 1:] > mask[:, :-1]).any()):
            return None  # padding stands on the right, and nothing before it looks there
        before = torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool, device=mask.device).tril()
        # Padding looks at itself: a row without any token has no softmax.
        return before & (real | torch.eye(len(before), dtype=torch.bool, device=mask.device))


class Classifier(nn.Module):
    """Labels from the mean of a text's tokens: at the start a linear probe of the frozen model's last layer."""

    def __init__(self, network: SideNetwork, labels: Sequence[str]) -> None:
        super().__init__()
        self.network, self.config = network, network.config
        self.config.id2label = dict(enumerate(labels))
        self.config.label2id = {label: i for i, label in enumerate(labels)}
        self.head = nn.Linear(int(self.config.hidden_size), len(labels))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def device(self) -> torch.device:
        """Where it lies: transformers' pipelines ask."""
        return self.head.weight.device

    def can_generate(self) -> bool:
        """Pipelines ask this too."""
        return False

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **inputs: Any
    ) -> SequenceClassifierOutput:
        """Logits [m, labels] of token numbers [m, T]."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden = self.network(input_ids, attention_mask=mask, **inputs).last_hidden_state
        real = mask.unsqueeze(2).to(hidden.dtype)
        mean = (hidden * real).sum(1) / real.sum(1).clamp(min=1)
        return SequenceClassifierOutput(logits=self.head(F.layer_norm(mean, mean.shape[-1:])))
