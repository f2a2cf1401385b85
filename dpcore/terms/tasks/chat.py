"""A conversation, of which the assistant's turns are to be written."""

from dpcore.terms.kind import Column, Kind

KIND = Kind(
    about="A language model learns the assistant's turns of conversations.",
    columns=(Column(name="messages", help="The column with a chat's messages.", conversation=True),),
    tells=("messages",),
    causal_lm=True,
    chat_template=True,
    measured_as="completion",
    example='asked = tokenizer.apply_chat_template(\n    [{"role": "user", "content": "a question"}],\n'
    '    add_generation_prompt=True,\n    return_tensors="pt",\n    return_dict=True,\n)\n',
)
