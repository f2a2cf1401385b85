"""`python -m api --host H --port P`: the API under uvicorn, settings from TACIT_* variables."""

import argparse
import os

import uvicorn
from pydantic import ValidationError

from api.app import create_app
from domain.settings import ApiSettings


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m api", description="The HTTP API of Tacit.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    os.umask(0o077)  # uploads hold private rows
    try:
        settings = ApiSettings()  # type: ignore[call-arg]  # from the environment
    except ValidationError as error:  # its own words would repeat the secrets
        wrong = "; ".join(f"TACIT_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        parser.exit(2, f"The API does not start: {wrong}\n")
    uvicorn.run(
        create_app(settings),
        host=arguments.host,
        port=arguments.port,
        server_header=False,
        timeout_graceful_shutdown=10,
    )


if __name__ == "__main__":
    main()
