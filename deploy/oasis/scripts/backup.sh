#!/bin/sh
# Writes a backup into the folder given: metadata (MongoDB), files, Temporal's tables, .env.
# App and workers stop meanwhile, so that the parts fit together. The search index is made anew
# from the rest when a backup is read back.
set -eu
target=${1:?usage: backup.sh FOLDER (it must not exist)}
mkdir "$target"
target=$(cd "$target" && pwd)
cd "$(dirname "$0")/.."
umask 077

running=$(docker compose ps --services --status running | grep -E '^(proxy|app|worker|cpu_worker|gpu_worker)$' || true)
# shellcheck disable=SC2086 # several names
[ -z "$running" ] || docker compose stop $running
start_again() {
    # shellcheck disable=SC2086
    [ -z "$running" ] || docker compose start $running
}
trap start_again EXIT

# $VARIABLES in single quotes are those of the container.
docker compose exec -T mongo sh -c \
    'mongodump --quiet --archive --gzip --username "$MONGO_INITDB_ROOT_USERNAME" --password "$MONGO_INITDB_ROOT_PASSWORD" --authenticationDatabase admin' \
    > "$target/mongo.archive.gz"
for database in temporal temporal_visibility; do
    docker compose exec -T postgres pg_dump --username temporal --format custom "$database" > "$target/$database.dump"
done
docker compose run --rm --no-deps -T app tar --create --directory /app/.volumes/fs . > "$target/files.tar"
cp .env configs/nomad.yaml "$target"
(cd "$target" && sha256sum mongo.archive.gz temporal.dump temporal_visibility.dump files.tar .env nomad.yaml > SHA256SUMS)
echo "Wrote $target:"
ls -l "$target"
