#!/bin/sh
# `schema`: make or update the tables of Temporal. `namespace`: make the namespace. Both may run again.
set -eu

# The tool takes host, port, user, password and plugin from SQL_HOST, SQL_PORT, SQL_USER,
# SQL_PASSWORD and SQL_PLUGIN. What is already there is left as it is.
schema() { # database, folder of its schema
    temporal-sql-tool --db "$1" create || echo "$1 may exist already; going on."
    temporal-sql-tool --db "$1" setup-schema -v 0.0
    temporal-sql-tool --db "$1" update-schema -d "/etc/temporal/schema/postgresql/v12/$2/versioned"
}

case ${1:-} in
    schema)
        schema temporal temporal
        schema temporal_visibility visibility
        ;;
    namespace)
        tries=30
        until temporal operator cluster health --address "$TEMPORAL_ADDRESS"; do
            tries=$((tries - 1))
            [ "$tries" -gt 0 ] || { echo "Temporal at $TEMPORAL_ADDRESS does not answer." >&2; exit 1; }
            sleep 2
        done
        temporal operator namespace describe --namespace "$TEMPORAL_NAMESPACE" --address "$TEMPORAL_ADDRESS" \
            || temporal operator namespace create --namespace "$TEMPORAL_NAMESPACE" --address "$TEMPORAL_ADDRESS"
        ;;
    *)
        echo "usage: temporal-setup.sh schema|namespace" >&2
        exit 2
        ;;
esac
