"""Two texts, and one of a public set of labels for both together."""

from dpcore.terms.kind import TEXT, Column, Kind

KIND = Kind(
    about="Two texts together have one of a public set of labels.",
    columns=(TEXT, Column(name="text_pair", help="The column with a pair's second text.")),
    tells=("text_pair",),
    causal_lm=False,
    measured_as="classification",
    example='pair = {"text": "a text", "text_pair": "its pair"}\n'
    "print(classify([pair], truncation=True, max_length={max_length}))\n",
)
