"""`tacit audit`: who did what."""

from cli import options, output
from cli.client import connect

COLUMNS = ["created_at", "key", "action", "target", "status", "request_id"]


@options.explained
def audit(
    limit: options.Most = 100, url: options.Url = None, key: options.Key = None, as_json: options.Json = False
) -> None:
    """Auditor: requests that changed something or handed out rows, newest first.

    ```text
    tacit audit --limit 1000 --json
    ```
    """
    output.show_list(connect(url, key).pages("/v1/audit", limit), COLUMNS, as_json)
