"""`python -m api --host H --port P`: the API under uvicorn, settings from TACIT_* variables."""

import argparse

import uvicorn

from api.app import create_app
from domain.kit.logs import set_up
from domain.kit.process import protect
from domain.kit.settings import ApiSettings, BadSettings, from_environment


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m api", description="The HTTP API of Tacit.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    protect()
    try:
        settings = from_environment(ApiSettings)
    except BadSettings as error:
        parser.exit(2, f"The API does not start: {error}\n")
    set_up()
    uvicorn.run(
        create_app(settings),
        host=arguments.host,
        port=arguments.port,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_graceful_shutdown=10,
        timeout_keep_alive=75,  # longer than clients and proxies keep one: else they send into one that is closing
        log_config=None,
        access_log=False,  # the application says what may be said
    )


if __name__ == "__main__":
    main()
