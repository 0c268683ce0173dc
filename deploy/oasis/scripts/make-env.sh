#!/bin/sh
# Writes .env from .env.example with new random secrets, readable by its owner only.
set -eu
cd "$(dirname "$0")/.."
if [ -e .env ]; then
    echo ".env exists and stays as it is. New secrets would lock out the databases that have the old ones." >&2
    exit 1
fi
umask 077
new=$(mktemp .env.XXXXXX)
trap 'rm -f "$new"' EXIT
while IFS= read -r line; do
    case $line in
        NOMAD_SERVICES_API_SECRET= | MONGO_PASSWORD= | ELASTIC_PASSWORD= | POSTGRES_PASSWORD=)
            secret=$(openssl rand -hex 32)
            [ "${#secret}" -eq 64 ] || { echo "openssl gave no secret" >&2; exit 1; }
            line=$line$secret
            ;;
    esac
    printf '%s\n' "$line"
done < .env.example > "$new"
mv "$new" .env
trap - EXIT
echo "Wrote $(pwd)/.env. Keep a copy where your backups are: without it they cannot be read back."
