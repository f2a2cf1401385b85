"""A prompt, and what is to be written after it."""

from dpcore.terms.kind import Column, Kind

KIND = Kind(
    about="A language model learns what to write after a prompt.",
    columns=(
        Column(name="prompt", help="The column with the prompt."),
        Column(name="completion", help="The column with what is to be written after it."),
    ),
    tells=("prompt", "completion"),
    written=("completion",),
    causal_lm=True,
    measured_as="completion",
    example="# A prompt that does not end with white space got a line break in training.\n"
    'asked = tokenizer("a prompt\\n", return_tensors="pt")\n',
)
