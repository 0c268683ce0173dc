#!/bin/sh
# Reads a backup of backup.sh back into an Oasis with empty volumes, whose .env is that of the backup.
set -eu
source=$(cd "${1:?usage: restore.sh FOLDER}" && pwd)
cd "$(dirname "$0")/.."
(cd "$source" && sha256sum --check --quiet SHA256SUMS)
cmp -s .env "$source/.env" || {
    echo "The .env here is not that of the backup, and its secrets are needed: cp $source/.env .env" >&2
    exit 1
}
if [ -n "$(docker compose ps --all --quiet app)" ]; then
    echo "There is an Oasis here. Only an empty one is written to; see docs/oasis-admin.md." >&2
    exit 1
fi

docker compose up --detach --wait mongo postgres elastic
# $VARIABLES in single quotes are those of the container.
docker compose exec -T mongo sh -c \
    'mongorestore --quiet --archive --gzip --drop --nsExclude "admin.*" --nsExclude "config.*" --username "$MONGO_INITDB_ROOT_USERNAME" --password "$MONGO_INITDB_ROOT_PASSWORD" --authenticationDatabase admin' \
    < "$source/mongo.archive.gz"
for database in temporal temporal_visibility; do
    docker compose exec -T postgres dropdb --username temporal --if-exists --maintenance-db postgres "$database"
    docker compose exec -T postgres createdb --username temporal --maintenance-db postgres "$database"
    docker compose exec -T postgres pg_restore --username temporal --exit-on-error --dbname "$database" \
        < "$source/$database.dump"
done
docker compose run --rm --no-deps -T app tar --extract --directory /app/.volumes/fs < "$source/files.tar"
docker compose up --detach --wait
docker compose exec -T app nomad admin uploads index
echo "Read back. Compare the number of entries with what it was."
