"""What the Postgres image does when its volume is new."""

import os
import subprocess
from pathlib import Path

import psycopg

from cli.embedded import postgres
from migrations.roles import SCHEMA

ROOT = Path(__file__).parents[2]


def as_the_image_does(server: postgres.Postgres, password: str, secrets: Path) -> subprocess.CompletedProcess[str]:
    """The database of compose, and deploy/roles.sh with psql in the image's environment."""
    with psycopg.connect(
        server.url("postgres", password, "postgres").replace("+psycopg", ""), autocommit=True
    ) as connection:
        if connection.execute("SELECT FROM pg_database WHERE datname = 'tacit'").fetchone() is None:
            connection.execute("CREATE DATABASE tacit")
    programs = postgres.programs()
    image = {
        "PATH": f"{programs[max(programs)]}:{os.defpath}",
        "PGHOST": str(server.socket_folder),
        "PGPORT": str(postgres.PORT),
        "PGPASSWORD": password,
        "POSTGRES_USER": "postgres",
        "POSTGRES_DB": "tacit",
        "TACIT_SECRETS": str(secrets),
        "TACIT_ROLES": str(SCHEMA),
    }
    script = ["sh", ROOT / "deploy" / "roles.sh"]
    return subprocess.run(script, env=image, check=True, capture_output=True, text=True)
