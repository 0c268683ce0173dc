"""The users of the rig, served as the central NOMAD serves them to an Oasis: `GET .../v1/users`.

There is no Keycloak and nobody logs in; see docs/oasis-rig.md.

    python user_stub.py PORT
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


def user(number: int, first: str, last: str) -> dict[str, Any]:
    """Return a user as NOMAD's API describes one."""
    return {
        "user_id": f"00000000-0000-4000-8000-{number:012d}",
        "username": f"{first}{last}".lower(),
        "email": f"{first}.{last}@example.org".lower(),
        "first_name": first,
        "last_name": last,
        "name": f"{first} {last}",
        "is_admin": False,
        "is_oasis_admin": False,
    }


AUTHOR = user(1, "Ada", "Author")
COAUTHOR = user(2, "Carl", "Coauthor")
USERS = (AUTHOR, COAUTHOR)


def found(query: dict[str, list[str]]) -> list[dict[str, Any]]:
    """Return the users that a query asks for: user_id, username, email or a prefix of the name."""
    for key in ("user_id", "username", "email"):
        if key in query:
            return [person for person in USERS if person[key] in query[key]]
    prefix = query.get("prefix", [""])[0].lower()
    return [person for person in USERS if person["name"].lower().startswith(prefix)]


def serve(port: int) -> None:
    """Serve until the process ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            content = json.dumps({"data": found(parse_qs(urlsplit(self.path).query))}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    Server(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
