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
from transformers.modeling_outputs import SequenceClassifierOutput

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
    """An encoder or a decoder, without its head, as a classifier of texts or pictures for these labels. Raises
    ValueError for a model whose layers' outputs cannot be read."""
    sizes = _sizes(model, **_made_up(model))
    return Classifier(SideNetwork(model, width, sizes, causal=False), labels).eval()


def writer(model: Any, width: int) -> Any:
    """A causal language model with a network beside its layers: in place, its head and its `generate` are its own.

    Raises ValueError for a model whose layers' outputs cannot be read.
    """
    model.requires_grad_(False)
    parent, name, inputs = _place(model)
    frozen = getattr(parent, name)
    setattr(parent, name, SideNetwork(frozen, width, _sizes(frozen, **inputs), causal=True))
    if model.can_generate():
        model.generation_config.use_cache = False
    return model.eval()


def _made_up(model: nn.Module) -> dict[str, Tensor]:
    """One record of seven tokens that mean nothing, or one grey picture."""
    if getattr(model, "main_input_name", "") == "pixel_values":
        config: Any = model.config
        return {"pixel_values": torch.zeros(1, config.num_channels, config.image_size, config.image_size)}
    ids = torch.zeros(1, 7, dtype=torch.int64, device=next(model.parameters()).device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _place(model: Any) -> tuple[nn.Module, str, dict[str, Any]]:
    """Where a language model keeps the layers that it calls itself, and what it calls them with: below OPT's base model
    lies its decoder, which the head reads without asking the base model."""
    places = [(model, model.base_model_prefix), *((model.base_model, n) for n, _ in model.base_model.named_children())]
    called: dict[int, dict[str, Any]] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        called[id(module)] = {**dict(zip(("input_ids",), args, strict=False)), **kwargs}

    hooks = [getattr(parent, n).register_forward_pre_hook(note, with_kwargs=True) for parent, n in places]
    try:
        with torch.no_grad():
            model(**_made_up(model), use_cache=False)
    except Exception as error:  # whatever a model's own code raises
        raise ValueError(f"{type(model).__name__} does not run on token numbers alone") from error
    finally:
        for hook in hooks:
            hook.remove()
    for parent, n in places:
        inputs = called.get(id(getattr(parent, n)), {})
        if inputs.get("input_ids") is not None:
            return parent, n, inputs
    raise ValueError(f"a side network finds no layers in {type(model).__name__} that read its tokens")


def _sizes(frozen: nn.Module, **inputs: Any) -> list[int]:
    """Numbers a token in what the embeddings and each layer give. Raises ValueError where that cannot be read."""
    name = type(frozen).__name__
    try:
        with torch.no_grad():
            output = frozen(**inputs | {"output_hidden_states": True, "return_dict": True})
    except Exception as error:  # whatever a model's own code raises
        raise ValueError(
            f"a side network needs a model that runs on token numbers or pixels alone, which {name} does not"
        ) from error
    read, last = getattr(output, "hidden_states", None), getattr(output, "last_hidden_state", None)
    if not read or last is None:
        raise ValueError(f"a side network reads what a model's layers give, and {name} does not tell")
    places = last.shape[:-1] if "pixel_values" in inputs else inputs["input_ids"].shape
    if last.dim() != 3 or any(hidden.shape[:-1] != places for hidden in (*read, last)):
        raise ValueError(f"a side network reads every layer at every token, and {name} shortens its records on the way")
    return [hidden.shape[-1] for hidden in (*read, last)]


class SideNetwork(nn.Module):
    """A frozen model, and a ladder of narrow layers that reads what its layers give; it stands where the model stood.

    No backward pass enters the frozen model, so nothing of it is kept but what the ladder reads: the embeddings' and
    each layer's output, [m, T, d]. The state z is [m, T, width] (Sung et al. 2022; DP-MemArc, Liu et al. 2024):

    z = Down_0(h_0);  z = Layer_l(mu z + (1 - mu) Down_l(h_l)), mu = sigmoid(gate_l / TEMPERATURE);  h_L + Up(z)

    Up starts at zero, so that training starts at the frozen model's own output. sizes: d of h_0 to h_L, and of what the
    model puts out. causal: no token looks ahead.
    """

    def __init__(self, frozen: Any, width: int, sizes: Sequence[int], *, causal: bool) -> None:
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        self.config: Any = frozen.config
        # Keys and values of earlier tokens would be kept for the frozen layers alone.
        self.config.use_cache = False
        self.causal = causal
        *read, self.size = sizes
        self.down = nn.ModuleList([nn.Linear(size, width, bias=False) for size in read])
        self.layers = nn.ModuleList([SideLayer(width, causal=causal) for _ in read[1:]])
        self.up = nn.Linear(width, self.size, bias=False)
        nn.init.zeros_(self.up.weight)

    def get_input_embeddings(self) -> nn.Module:
        """The frozen model's: transformers denies a language model its head where it finds none."""
        return self.frozen.get_input_embeddings()  # type: ignore[no-any-return]

    @property
    def embed_tokens(self) -> nn.Module:
        """The same, as OPT asks its decoder for it."""
        return self.get_input_embeddings()

    def forward(self, input_ids: Tensor | None = None, *, attention_mask: Tensor | None = None, **inputs: Any) -> Any:
        """The frozen model's output; its last_hidden_state, [m, T, d], is changed by the network."""
        kept = [name for name in ("past_key_values", "cache_params", "state", "mems") if inputs.get(name) is not None]
        if kept:
            raise ValueError(f"a side network keeps nothing of earlier tokens ({kept[0]}): leave use_cache out")
        wanted = inputs | {"output_hidden_states": True, "return_dict": True}
        # Padding, which stands on the left when a batch is written on from, goes to the right, where nothing before it
        # looks: no causal layer needs a mask, nobody asks whether there is padding, and no T x T matrix is there.
        order = None
        if self.causal and attention_mask is not None:
            order = (attention_mask == 0).to(torch.uint8).argsort(dim=1, stable=True)
        with torch.no_grad():
            if "pixel_values" in wanted:
                output = self.frozen(**wanted)
            else:
                output = self.frozen(input_ids, attention_mask=attention_mask, **wanted)
            # Of one scale whatever the model, without which one layer's outliers would fill a clipped gradient.
            read = [_moved(F.layer_norm(hidden, hidden.shape[-1:]), order) for hidden in output.hidden_states]
        z = self.down[0](read[0])
        for down, layer, hidden in zip(self.down[1:], self.layers, read[1:], strict=True):
            z = layer(z, down(hidden), None if self.causal else attention_mask)
        last = output.last_hidden_state + self.up(_moved_back(z, order))
        # Only this: hidden states in the output would outlive the forward pass.
        rest = {name: value for name, value in output.items() if name not in ("hidden_states", "attentions")}
        return type(output)(**rest | {"last_hidden_state": last})


def _moved(tokens: Tensor, order: Tensor | None) -> Tensor:
    """Tokens [m, T, d] in the order [m, T] of their places."""
    return tokens if order is None else tokens.gather(1, order.unsqueeze(2).expand_as(tokens))


def _moved_back(tokens: Tensor, order: Tensor | None) -> Tensor:
    """The same the other way; unlike `gather`, this keeps no tokens for the backward pass."""
    return (
        tokens if order is None else torch.zeros_like(tokens).scatter(1, order.unsqueeze(2).expand_as(tokens), tokens)
    )


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
        """z, read: [m, T, width]; mask: [m, T], 0 on padding, or None; a causal layer takes none."""
        mu = torch.sigmoid(self.gate / TEMPERATURE)
        z = read + mu * (z - read)
        z = z + self.attended(self._attention(self.query_key_value(F.layer_norm(z, z.shape[-1:])), mask))
        # ReLU is its own memory of where it was zero.
        return z + self.outer(F.relu(self.inner(F.layer_norm(z, z.shape[-1:]))))  # type: ignore[no-any-return]

    def _attention(self, query_key_value: Tensor, mask: Tensor | None) -> Tensor:
        """[m, T, 3 width] to [m, T, width]."""
        m, length, _ = query_key_value.shape
        query, key, value = query_key_value.view(m, length, 3, -1, HEAD_WIDTH).permute(2, 0, 3, 1, 4)
        real = None if mask is None else mask[:, None, None, :] != 0
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=real, is_causal=self.causal)
        return out.transpose(1, 2).reshape(m, length, -1)


class Classifier(nn.Module):
    """Labels from the mean of a record's tokens: at the start a linear probe of the frozen model's last layer."""

    def __init__(self, network: SideNetwork, labels: Sequence[str]) -> None:
        super().__init__()
        self.network, self.config = network, network.config
        self.config.id2label = dict(enumerate(labels))
        self.config.label2id = {label: i for i, label in enumerate(labels)}
        self.head = nn.Linear(network.size, len(labels))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def device(self) -> torch.device:
        """Where it lies: transformers' pipelines ask."""
        return self.head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """As which pipelines hand over pictures."""
        return self.head.weight.dtype

    def can_generate(self) -> bool:
        """Pipelines ask this too."""
        return False

    @property
    def main_input_name(self) -> str:
        """What the frozen model reads."""
        return self.network.frozen.main_input_name  # type: ignore[no-any-return]

    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, **inputs: Any
    ) -> SequenceClassifierOutput:
        """Logits [m, labels] of token numbers [m, T], or of pixel_values [m, channels, side, side]."""
        if input_ids is None:
            seen = self.network(**inputs).last_hidden_state.mean(1)
            return SequenceClassifierOutput(logits=self.head(F.layer_norm(seen, seen.shape[-1:])))
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden = self.network(input_ids, attention_mask=mask, **inputs).last_hidden_state
        real = mask.unsqueeze(2).to(hidden.dtype)
        mean = (hidden * real).sum(1) / real.sum(1).clamp(min=1)
        return SequenceClassifierOutput(logits=self.head(F.layer_norm(mean, mean.shape[-1:])))
