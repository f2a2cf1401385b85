"""`tacit models`: what can be fine-tuned."""

from cli import options, output
from cli.client import connect

COLUMNS = ["id", "owned_by", "created"]


@options.explained
def models(url: options.Url = None, key: options.Key = None, as_json: options.Json = False) -> None:
    """The base models that jobs may name."""
    output.show_list(connect(url, key).get("/v1/models")["data"], COLUMNS, as_json)
