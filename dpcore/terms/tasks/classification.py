"""A text, and one of a public set of labels."""

from dpcore.terms.kind import TEXT, Kind

KIND = Kind(
    about="A text has one of a public set of labels.",
    columns=(TEXT,),
    causal_lm=False,
    measured_as="classification",
    example='print(classify(["a text", "another text"], truncation=True, max_length={max_length}))\n',
)
