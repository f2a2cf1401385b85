#!/bin/sh
# Makes the secret files of docker-compose.yml, once:  deploy/make-secrets.sh [FOLDER]   (default: ./secrets)
# Needs openssl 1.1.1 or later. Nothing is printed. Back the folder up apart from the database: without
# master_key no row can be read, without fingerprint_key every record looks new.
set -eu
umask 077
folder=${1:-secrets}
if [ -e "$folder" ]; then
    echo "$folder exists: other secrets would not open the database that was made with it" >&2
    exit 1
fi
draft="$folder.new"
rm -rf "$draft"
mkdir -p "$draft"

fresh() { openssl rand -hex 32; }
hex() { od -An -v -tx1 | tr -d ' \n'; }
keep() { printf '%s\n' "$2" > "$draft/$1"; }

postgres=$(fresh)
admin=$(fresh)
api=$(fresh)
worker=$(fresh)
broker=$(fresh)
store_user=tacit
store_password=$(fresh)

keep postgres_password "$postgres"
keep admin_database_url "postgresql+psycopg://tacit_admin:$admin@postgres:5432/tacit"
keep api_database_url "postgresql+psycopg://tacit_api_login:$api@postgres:5432/tacit"
keep worker_database_url "postgresql+psycopg://tacit_worker_login:$worker@postgres:5432/tacit"
keep broker_conf "requirepass $broker"
keep broker_url "redis://:$broker@broker:6379/0"
keep store_user "$store_user"
keep store_password "$store_password"
keep blob_options "{\"endpoint\": \"http://store:9000\", \"region\": \"us-east-1\", \"access_key_id\": \"$store_user\", \"secret_access_key\": \"$store_password\"}"
keep key_pepper "$(fresh)"
keep fingerprint_key "$(fresh)"
keep signing_key "$(fresh)"
keep master_key "$(fresh)"

# The policy key signs what gives room back to a budget. Its seed belongs to the operator: no container gets it.
openssl genpkey -algorithm ed25519 -outform DER -out "$draft/policy.der" 2>/dev/null
keep policy_key "$(openssl pkey -inform DER -in "$draft/policy.der" -pubout -outform DER | tail -c 32 | hex)"
mkdir "$draft/operator"
keep operator/policy_seed "$(tail -c 32 "$draft/policy.der" | hex)"
rm "$draft/policy.der"

# Containers read them under other user ids; on this machine the folder is closed to everybody else.
find "$draft" -maxdepth 1 -type f -exec chmod 0444 {} +
chmod 0400 "$draft/operator/policy_seed"
mv "$draft" "$folder"
