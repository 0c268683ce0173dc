"""Answers what NOMAD asks of Elasticsearch, from memory.

Documents, ids, exact and range queries, nested objects, sorting, paging after a value and the
plain aggregations behave as in Elasticsearch. Relevance, analysis of text, caps of page sizes
and acceptance of mappings do not exist here: a mapping is only kept to know which fields are text.
What is not understood is written to standard error, so that gaps show.

    python elasticsearch_stub.py PORT
"""

from __future__ import annotations

import fnmatch
import json
import math
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Json = dict[str, Any]
VERSION = {
    "number": "9.1.0",
    "build_flavor": "default",
    "build_type": "docker",
    "build_hash": "0" * 40,
    "build_date": "2025-01-01T00:00:00.000Z",
    "build_snapshot": False,
    "lucene_version": "10.2.0",
    "minimum_wire_compatibility_version": "8.18.0",
    "minimum_index_compatibility_version": "8.0.0",
}


def complain(text: str) -> None:
    """Say that something was not understood."""
    sys.stderr.write(f"elasticsearch_stub: {text}\n")
    sys.stderr.flush()


def values_at(document: Any, path: str) -> Iterator[Any]:
    """Yield all values below a dotted path; lists are descended into, as Elasticsearch does."""
    if isinstance(document, list):
        for item in document:
            yield from values_at(item, path)
    elif not path:
        if document is not None:
            yield document
    elif isinstance(document, dict):
        if path in document:  # keys may themselves contain dots
            yield from values_at(document[path], "")
            return
        head, _, rest = path.partition(".")
        if head in document:
            yield from values_at(document[head], rest)
        elif path.endswith(".keyword"):  # the exact twin of a text field
            return


def field_values(document: Json, path: str) -> list[Any]:
    """Return the values of a field; of `x.keyword` those of `x`."""
    found = list(values_at(document, path))
    if not found and path.endswith(".keyword"):
        found = list(values_at(document, path.removesuffix(".keyword")))
    return found


def same(value: Any, wanted: Any) -> bool:
    """Tell whether a stored value is the one asked for."""
    if isinstance(value, bool) or isinstance(wanted, bool):
        return str(value).lower() == str(wanted).lower()
    return value == wanted or str(value) == str(wanted)


def only(document: Json, path: str, part: Json) -> Json:
    """Return the document that has one object at a path and nothing else."""
    wrapped: Json = part
    for name in reversed(path.split(".")):
        wrapped = {name: wrapped}
    return wrapped


def in_range(value: Any, bounds: Json) -> bool:
    """Tell whether a number, or a date as text, lies within gte/gt/lte/lt."""
    tests: dict[str, Callable[[Any, Any], bool]] = {
        "gte": lambda x, y: x >= y,
        "gt": lambda x, y: x > y,
        "lte": lambda x, y: x <= y,
        "lt": lambda x, y: x < y,
    }
    try:
        return all(tests[name](value, bound) for name, bound in bounds.items() if name in tests)
    except TypeError:
        return False


class Index:
    """Documents of one index by id."""

    def __init__(self) -> None:
        self.documents: dict[str, Json] = {}
        self.text_fields: set[str] = set()

    def add_mapping(self, properties: Json, prefix: str = "") -> None:
        """Remember which fields are text that is to be split into words."""
        for name, mapping in properties.items():
            path = f"{prefix}{name}"
            if mapping.get("type") == "text":
                self.text_fields.add(path)
            for twin, definition in mapping.get("fields", {}).items():
                if definition.get("type") == "text":
                    self.text_fields.add(f"{path}.{twin}")
            self.add_mapping(mapping.get("properties", {}), f"{path}.")

    def matches(self, document: Json, query: Json) -> bool:
        """Tell whether a document matches; a query that is not understood matches everything."""
        return all(self._matches(document, kind, body) for kind, body in query.items())

    def _matches(self, document: Json, kind: str, body: Any) -> bool:
        if kind == "match_all":
            return True
        if kind == "match_none":
            return False
        if kind == "bool":
            return self._matches_bool(document, body)
        if kind in ("constant_score",):
            return self.matches(document, body["filter"])
        if kind == "exists":
            return bool(field_values(document, body["field"]))
        if kind == "ids":
            return any(same(document.get("entry_id"), wanted) for wanted in body["values"])
        if kind == "nested":
            path = body["path"]
            parts = [part for part in values_at(document, path) if isinstance(part, dict)]
            return any(self.matches(only(document, path, part), body["query"]) for part in parts)
        if kind not in ("term", "terms", "match", "prefix", "range", "match_phrase", "wildcard"):
            complain(f"query kind {kind!r} is not known and matches everything: {body!r}")
            return True
        ((path, wanted),) = ((k, v) for k, v in body.items() if k != "boost")
        found = field_values(document, path)
        if kind == "terms":
            return any(same(value, item) for value in found for item in wanted)
        if kind == "range":
            return any(in_range(value, wanted) for value in found)
        if isinstance(wanted, dict):
            wanted = wanted.get("value", wanted.get("query"))
        if kind == "prefix":
            return any(str(value).startswith(str(wanted)) for value in found)
        if kind == "wildcard":
            return any(fnmatch.fnmatchcase(str(value), str(wanted)) for value in found)
        if kind in ("match", "match_phrase") and path in self.text_fields:
            words = set(str(wanted).lower().split())
            return any(words & set(str(value).lower().split()) for value in found)
        return any(same(value, wanted) for value in found)

    def _matches_bool(self, document: Json, body: Json) -> bool:
        def clauses(name: str) -> list[Json]:
            value = body.get(name, [])
            return value if isinstance(value, list) else [value]

        required = [*clauses("must"), *clauses("filter")]
        if not all(self.matches(document, clause) for clause in required):
            return False
        if any(self.matches(document, clause) for clause in clauses("must_not")):
            return False
        optional = clauses("should")
        needed = body.get("minimum_should_match", 0 if required or not optional else 1)
        return sum(self.matches(document, clause) for clause in optional) >= int(needed)

    def found(self, query: Json | None) -> list[tuple[str, Json]]:
        """Return id and document of all that match, by id."""
        return [
            (id, document)
            for id, document in sorted(self.documents.items())
            if self.matches(document, query or {"match_all": {}})
        ]


def sort_key(id: str, document: Json, path: str) -> tuple[int, Any, str]:
    """Return what a document is sorted by: missing values last, numbers before texts."""
    if path in ("_doc", "_score"):
        return (0, 0, "")
    values = [id] if path == "_id" else field_values(document, path)
    if not values:
        return (2, 0, "")
    value = values[0]
    if isinstance(value, (int, float)):
        return (0, value, "")
    return (1, 0, str(value))


def sort_fields(sort: Any) -> list[tuple[str, bool]]:
    """Return (field, is descending) of each sort criterion."""
    fields = []
    for item in sort if isinstance(sort, list) else [sort] if sort else []:
        if isinstance(item, str):
            fields.append((item.lstrip("-"), item.startswith("-")))
            continue
        for path, how in item.items():
            order = how.get("order", "asc") if isinstance(how, dict) else how
            fields.append((path, order == "desc"))
    return fields


def kept(document: Json, source: Any) -> Json:
    """Return the part of a document that `_source` asks for."""
    if source is None or source is True:
        return document
    if source is False:
        return {}
    if isinstance(source, (str, list)):
        source = {"includes": source}

    def patterns(name: str) -> list[str]:
        value = source.get(name) or []
        return [value] if isinstance(value, str) else list(value)

    includes, excludes = patterns("includes"), patterns("excludes")

    def covered(path: str, wanted: list[str]) -> bool:
        return any(fnmatch.fnmatchcase(path, p) or path.startswith(f"{p}.") for p in wanted)

    def cut(value: Any, path: str) -> Any:
        if isinstance(value, list):
            return [cut(item, path) for item in value]
        if not isinstance(value, dict):
            return value
        part = {}
        for name, item in value.items():
            below = f"{path}.{name}" if path else name
            if covered(below, excludes):
                continue
            leads_on = any(p.startswith(f"{below}.") or "*" in p for p in includes)
            if (
                not includes
                or covered(below, includes)
                or (leads_on and isinstance(item, (dict, list)))
            ):
                part[name] = cut(item, below)
        return part

    result: Json = cut(document, "")
    return result


def aggregate(index: Index, documents: list[Json], requests: Json) -> Json:
    """Return the aggregations asked for; those that are not known have no buckets."""
    return {name: aggregation(index, documents, body) for name, body in requests.items()}


def aggregation(index: Index, documents: list[Json], body: Json) -> Json:
    """Return one aggregation over documents."""
    below = body.get("aggs", body.get("aggregations", {}))
    kind = next((name for name in body if name not in ("aggs", "aggregations", "meta")), "")
    what = body.get(kind, {})
    path = what.get("field", "")

    def bucket(part: list[Json]) -> Json:
        return {"doc_count": len(part), **aggregate(index, part, below)}

    if kind == "filter":
        return bucket([document for document in documents if index.matches(document, what)])
    if kind == "nested":
        parts = [
            only(document, what["path"], part)
            for document in documents
            for part in values_at(document, what["path"])
        ]
        return bucket(parts)
    if kind == "reverse_nested":
        return bucket(documents)
    if kind == "terms":
        by_value: dict[Any, list[Json]] = defaultdict(list)
        for document in documents:
            for value in dict.fromkeys(field_values(document, path)):
                by_value[value].append(document)
        ordered = sorted(by_value.items(), key=lambda item: (-len(item[1]), str(item[0])))
        size = int(what.get("size", 10))
        return {
            "doc_count_error_upper_bound": 0,
            "sum_other_doc_count": sum(len(part) for _, part in ordered[size:]),
            "buckets": [{"key": value, **bucket(part)} for value, part in ordered[:size]],
        }
    values = [value for document in documents for value in field_values(document, path)]
    if kind == "histogram":
        interval, offset = float(what["interval"]), float(what.get("offset", 0))
        counts: Counter[float] = Counter()
        for value in values:
            counts[math.floor((value - offset) / interval) * interval + offset] += 1
        return {"buckets": [{"key": key, "doc_count": counts[key]} for key in sorted(counts)]}
    if kind in ("min", "max"):
        numbers = [value for value in values if isinstance(value, (int, float))]
        return {"value": (min if kind == "min" else max)(numbers) if numbers else None}
    if kind == "value_count":
        return {"value": len(values)}
    if kind == "cardinality":
        return {"value": len(Counter(map(str, values)))}
    complain(f"aggregation {kind!r} is not known and stays empty: {what!r}")
    return {"buckets": [], "doc_count": 0, "value": None, "values": {}}


class Node:
    """All indexes, and the answer to each request."""

    def __init__(self) -> None:
        self.indexes: dict[str, Index] = {}
        self.lock = threading.Lock()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Json]:
        """Return status and body of the reply."""
        with self.lock:
            parts = [unquote(part) for part in path.strip("/").split("/") if part]
            if not parts:
                return 200, {
                    "name": "stub",
                    "cluster_name": "stub",
                    "cluster_uuid": "stub",
                    "version": VERSION,
                    "tagline": "You Know, for Search",
                }
            if parts[-1] == "_bulk":
                return 200, self._bulk(parts[0] if len(parts) > 1 else "", body)
            asked = json.loads(body) if body.strip() else {}
            if parts[0].startswith("_"):
                name, action = "", parts[0]
            else:
                name, action = parts[0], parts[1] if len(parts) > 1 else ""
            if not action:
                return self._index(method, name, asked)
            if action == "_doc" and len(parts) == 3:
                return self._document(method, name, parts[2], asked)
            return self._action(name, action, asked, f"{method} {path}")

    def _index(self, method: str, name: str, asked: Json) -> tuple[int, Json]:
        if method == "PUT":
            self.indexes.setdefault(name, Index()).add_mapping(
                asked.get("mappings", {}).get("properties", {})
            )
            return 200, {"acknowledged": True, "shards_acknowledged": True, "index": name}
        if name not in self.indexes:
            return 404, {"error": {"type": "index_not_found_exception"}, "status": 404}
        if method == "DELETE":
            del self.indexes[name]
        return 200, {"acknowledged": True}

    def _document(self, method: str, name: str, id: str, asked: Json) -> tuple[int, Json]:
        documents = self.indexes.setdefault(name, Index()).documents
        head = {"_index": name, "_id": id, "_version": 1}
        if method in ("PUT", "POST"):
            documents[id] = asked
            return 200, {**head, "result": "updated"}
        if id not in documents:
            return 404, {**head, "found": False}
        if method == "DELETE":
            del documents[id]
            return 200, {**head, "result": "deleted"}
        return 200, {**head, "found": True, "_source": documents[id]}

    def _bulk(self, default: str, body: bytes) -> Json:
        lines = iter(body.decode().splitlines())
        items = []
        for line in lines:
            if not line.strip():
                continue
            ((operation, head),) = json.loads(line).items()
            name, id = head.get("_index", default), str(head.get("_id"))
            documents = self.indexes.setdefault(name, Index()).documents
            if operation == "delete":
                documents.pop(id, None)
            elif operation == "update":
                change = json.loads(next(lines))
                documents.setdefault(id, {}).update(change.get("doc", {}))
            else:
                documents[id] = json.loads(next(lines))
            items.append({operation: {"_index": name, "_id": id, "status": 200, "_version": 1}})
        return {"took": 0, "errors": False, "items": items}

    def _action(self, name: str, action: str, asked: Json, request: str) -> tuple[int, Json]:
        index = self.indexes.setdefault(name, Index())
        shards = {"total": 1, "successful": 1, "skipped": 0, "failed": 0}
        if action == "_mapping":
            index.add_mapping(asked.get("properties", {}))
            return 200, {"acknowledged": True}
        if action in ("_refresh", "_settings"):
            return 200, {"_shards": shards, "acknowledged": True}
        if action == "_count":
            return 200, {"count": len(index.found(asked.get("query"))), "_shards": shards}
        if action == "_search":
            return 200, {**self._search(name, index, asked), "_shards": shards}
        found = index.found(asked.get("query"))
        reply = {"took": 0, "timed_out": False, "total": len(found), "failures": []}
        if action == "_delete_by_query":
            for id, _ in found:
                del index.documents[id]
            return 200, {**reply, "deleted": len(found)}
        if action == "_update_by_query":
            for _, document in found:
                run_script(document, asked.get("script", {}))
            return 200, {**reply, "updated": len(found)}
        complain(f"{request} is not known")
        return 400, {"error": {"type": "illegal_argument_exception", "reason": request}}

    def _search(self, name: str, index: Index, asked: Json) -> Json:
        found = index.found(asked.get("query"))
        aggregations = asked.get("aggs", asked.get("aggregations", {}))
        documents = [document for _, document in found]
        if "post_filter" in asked:
            found = [hit for hit in found if index.matches(hit[1], asked["post_filter"])]
        total = len(found)
        fields = sort_fields(asked.get("sort"))
        for path, is_descending in reversed(fields):
            found.sort(key=lambda hit: sort_key(*hit, path), reverse=is_descending)
        if after := asked.get("search_after"):
            found = following(found, str(after[-1]))
        start = int(asked.get("from", 0))
        hits = []
        for id, document in found[start : start + int(asked.get("size", 10))]:
            hit = {"_index": name, "_id": id, "_score": None if fields else 1.0}
            hit["_source"] = kept(document, asked.get("_source"))
            if fields:
                hit["sort"] = [
                    id if path == "_id" else next(iter(field_values(document, path)), None)
                    for path, _ in fields
                ]
            hits.append(hit)
        reply: Json = {"took": 0, "timed_out": False}
        reply["hits"] = {
            "total": {"value": total, "relation": "eq"},
            "max_score": None,
            "hits": hits,
        }
        if aggregations:
            reply["aggregations"] = aggregate(index, documents, aggregations)
        return reply


def following(found: list[tuple[str, Json]], after: str) -> list[tuple[str, Json]]:
    """Return the hits after the one with an id; NOMAD always sorts by the entry id at last."""
    ids = [id for id, _ in found]
    if after in ids:
        return found[ids.index(after) + 1 :]
    return [hit for hit in found if hit[0] > after]


def run_script(document: Json, script: Json) -> None:
    """Do what the two scripts of NOMAD 2.0.0 do: add an entry to a dataset, take it out."""
    params = script.get("params", {})
    if "dataset" in params:
        document.setdefault("datasets", []).append(params["dataset"])
    elif "dataset_id" in params:
        document["datasets"] = [
            dataset
            for dataset in document.get("datasets", [])
            if dataset.get("dataset_id") != params["dataset_id"]
        ]
    else:
        complain(f"script is not known and was not run: {script!r}")


def serve(port: int) -> None:
    """Serve until the process ends."""
    node = Node()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                status, reply = node.answer(self.command, urlsplit(self.path).path, body)
            except Exception as error:
                complain(f"{self.command} {self.path}: {error!r}")
                status, reply = 500, {"error": {"type": type(error).__name__}, "status": 500}
            content = json.dumps(reply).encode()
            accept = self.headers.get("Accept", "")
            self.send_response(status)
            self.send_header("X-Elastic-Product", "Elasticsearch")
            self.send_header("Content-Type", accept if "json" in accept else "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_POST = do_PUT = do_DELETE = do_HEAD = do_GET  # noqa: N815

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    Server(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
