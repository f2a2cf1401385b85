"""`python -m migrations`: upgrade the database named by TACIT_ADMIN_DATABASE_URL."""

import os
import sys

from migrations import head, upgrade


def main() -> None:
    url = os.environ.get("TACIT_ADMIN_DATABASE_URL")
    if not url:
        sys.exit("set TACIT_ADMIN_DATABASE_URL to the admin login's database URL")
    upgrade(url)
    sys.stdout.write(f"database is at revision {head()}\n")


main()
