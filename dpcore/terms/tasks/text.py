"""A text that is to be written from its beginning."""

from dpcore.terms.kind import TEXT, Kind

KIND = Kind(
    about="A language model learns to write texts.",
    columns=(TEXT,),
    causal_lm=True,
    measured_as="completion",
    example='asked = tokenizer("a beginning", return_tensors="pt")\n',
)
