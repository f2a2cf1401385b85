"""A picture, and one of a public set of labels."""

from dpcore.terms.kind import Column, Kind

KIND = Kind(
    about="A picture has one of a public set of labels.",
    columns=(Column(name="image", help="The column with the picture, of a Parquet file.", picture=True),),
    tells=("image",),
    causal_lm=False,
    measured_as="image",
    example='print(classify(["a picture.jpg", "another.png"]))\n',
)
