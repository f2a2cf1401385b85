"""The oldest releases in which exports are tested, and what of today's files those do not know."""

OLDEST = {"transformers": "4.46.3", "peft": "0.13.2"}
"""What a card claims; tests/dpcore/test_oldest.py installs and runs them."""
LORA_FIELDS = {
    *("base_model_name_or_path", "revision", "peft_type", "task_type", "auto_mapping", "inference_mode"),
    *("r", "target_modules", "lora_alpha", "lora_dropout", "fan_in_fan_out", "bias", "use_rslora", "modules_to_save"),
    *("init_lora_weights", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern"),
    *("megatron_config", "megatron_core", "loftq_config", "use_dora", "layer_replication"),
}
"""Of adapter_config.json, in the oldest release. It stops at a field that it does not know."""
TOKENIZER_CLASSES = {"TokenizersBackend": "PreTrainedTokenizerFast"}
"""Names that transformers 5 writes, and those that both know."""
