#!/bin/sh
# The Postgres image runs this once, when its volume is new: the roles of migrations/sql/roles.sql, with the logins and
# passwords of the three URLs that `deploy/make-secrets.sh` made. Nothing is printed, and no password is an argument.
(
    set -eu
    folder=${TACIT_SECRETS:-/run/secrets}
    part() { sed -n "s|^postgresql+psycopg://\\([^:]*\\):\\([^@]*\\)@.*|\\$2|p" "$folder/$1_database_url"; }
    {
        for login in admin api worker; do
            printf "\\\\set %s '%s'\n" "$login" "$(part $login 1)" "${login}_password" "$(part $login 2)"
        done
        cat "${TACIT_ROLES:-/etc/tacit/roles.sql}"
        echo 'REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;'
    } | psql -X -q -o /dev/null -v ON_ERROR_STOP=1 --single-transaction --username "$POSTGRES_USER" --dbname "$POSTGRES_DB"
)
