"""A model that was taught to end its turn ends it: in stock `generate` of what leaves, and in `tacit try`."""

import json

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GPT2Config, GPT2LMHeadModel
from transformers import PreTrainedTokenizerFast as Fast

from cli import predict
from dpcore.export import About
from dpcore.methods import get_trainer
from dpcore.models import build_model, load_tokenizer
from dpcore.tasks import make_task

SPECIAL = ["[UNK]", "[EOS]", "[USER]", "[ASSISTANT]", "[END]"]
WORDS = ["what", "is", "iron", "a", "metal"]
TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] | upper }}] {{ m['content'] }} [END]{% endfor %}"
    "{% if add_generation_prompt %}[ASSISTANT]{% endif %}"
)
CHAT = [{"role": "user", "content": "what is iron"}, {"role": "assistant", "content": "a metal"}]


@pytest.fixture
def base(tmp_path):
    """A writer whose chats end a turn with another token than its texts."""
    folder = tmp_path / "base"
    core = Tokenizer(WordLevel({w: i for i, w in enumerate([*SPECIAL, *WORDS])}, unk_token="[UNK]"))
    core.pre_tokenizer = Whitespace()
    tokenizer = Fast(tokenizer_object=core, unk_token="[UNK]", eos_token="[EOS]", additional_special_tokens=SPECIAL[2:])
    tokenizer.chat_template, tokenizer.model_input_names = TEMPLATE, ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(folder)
    sizes = {"vocab_size": 10, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
    config = GPT2Config(**sizes, bos_token_id=1, eos_token_id=1, initializer_range=0.5)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.mark.sampled(1)
@pytest.mark.parametrize("method", ["lora", "bitfit", "full", "side", "reversible"])
def test_a_learnt_chat_stops_at_the_end_of_its_turn(base, tmp_path, method):
    tokenizer = load_tokenizer(base)
    task = make_task("chat", tokenizer, max_length=32)
    model = get_trainer(method).attach(build_model("chat", base, (), seed=0), {}, task="chat", seed=0)
    records = task.encode({"messages": [json.dumps(CHAT)]})
    taught = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(taught, lr=0.02)
    for _ in range(400):
        optimiser.zero_grad()
        task.losses(model, records, torch.tensor([0]).numpy(), 16).sum().backward()
        optimiser.step()
    assert task.losses(model, records, torch.tensor([0]).numpy(), 16) < 0.05
    folder = tmp_path / "export"
    about = About("tiny", "0" * 64, method, "chat", (), 32)
    get_trainer(method).export(model.eval(), folder, about, tokenizer=tokenizer)
    loaded = predict.load(folder, base)
    assert predict.completion(loaded, {"messages": json.dumps(CHAT[:1])}, 20) == "a metal"

    if method == "lora":  # as a reader does without Tacit
        from peft import PeftModel

        stock = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folder
        ).eval()
        stock.generation_config = GenerationConfig.from_pretrained(folder)
    elif method == "full":
        stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    else:
        stock = loaded.model
    asked = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        CHAT[:1], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    written = stock.generate(asked["input_ids"], attention_mask=asked["attention_mask"], max_new_tokens=20)
    assert tokenizer.decode(written[0, asked["input_ids"].shape[1] :]).split() == ["a", "metal", "[END]"]
    ends = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    assert ends == [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("[END]")]
