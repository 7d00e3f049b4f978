"""A dataset hub imitated on the loopback interface: as much of its interface as `huggingface_hub` and `datasets` need to read datasets."""
import hashlib
import json
import re
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567" # What `main` is
_NAME, _TEXT = r"((?:[\w.-]+/)?[\w.-]+?)", "application/octet-stream"


class Hub(BaseHTTPRequestHandler):
    "Info, tree, paths-info, and resolve with ranges."
    protocol_version = "HTTP/1.1"
    folder_of: Callable[[str], Path | None] # The files of a dataset by its name; nothing if there is no such dataset
    commits: set[str] # Those that every dataset has
    gated: set[str] # Datasets that show their description and keep their files
    asked: list[str] # Every request, for the tests

    def log_message(self, *args): pass

    def send(self, body: bytes, status=200, **headers):
        self.send_response(status)
        for k, v in ({"Content-Type": "application/json"} | headers).items(): self.send_header(k, v)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD": self.wfile.write(body)

    def refuse(self, code: str, status=404): self.send(json.dumps({"error": code}).encode(), status, **{"X-Error-Code": code, "X-Error-Message": code})

    def entry(self, files: Path, p: Path):
        kind = {"type": "directory", "size": 0} if p.is_dir() else {"type": "file", "size": p.stat().st_size}
        return {"path": p.relative_to(files).as_posix(), "oid": "f" * 40} | kind

    def handle_hub(self):
        url = urlsplit(self.path); path = unquote(url.path); query = parse_qs(url.query)
        self.asked.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()   # read before any answer, or the connection is spoilt for the next request
        m = re.fullmatch(rf"/api/datasets/{_NAME}(?:/(revision|tree|paths-info)/([\w.-]+)(?:/(.*))?)?", path) or re.fullmatch(rf"/datasets/{_NAME}/(resolve)/([\w.-]+)/(.+)", path)
        if not m or (files := self.folder_of(m[1])) is None: return self.refuse("RepoNotFound")
        name, kind, commit, inside = m[1], m[2] or "revision", COMMIT if m[3] in (None, "main") else m[3], (m[4] or "").strip("/")
        if commit not in self.commits: return self.refuse("RevisionNotFound")
        if kind == "revision":
            siblings = [{"rfilename": self.entry(files, p)["path"]} for p in sorted(files.rglob("*")) if p.is_file()]
            return self.send(json.dumps({"id": name, "sha": commit, "siblings": siblings, "tags": [], "private": False, "disabled": False, "downloads": 0, "likes": 0, "gated": "auto" if name in self.gated else False}).encode())
        if name in self.gated: return self.refuse("GatedRepo", 401)
        if kind == "tree":
            if not (files/inside).is_dir(): return self.refuse("EntryNotFound")
            found = (files/inside).rglob("*") if query.get("recursive", ["false"])[0].lower() == "true" else (files/inside).iterdir()
            return self.send(json.dumps([self.entry(files, p) for p in sorted(found)]).encode())
        if kind == "paths-info":
            wanted = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
            return self.send(json.dumps([self.entry(files, files/p) for p in wanted if (files/p).exists()]).encode())
        if not (files/inside).is_file(): return self.refuse("EntryNotFound")
        content = (files/inside).read_bytes()
        named = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes", "Content-Type": _TEXT}
        if r := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            a, b = int(r[1]), min(int(r[2] or len(content) - 1), len(content) - 1)
            return self.send(content[a:b + 1], 206, **named, **{"Content-Range": f"bytes {a}-{b}/{len(content)}"})
        self.send(content, **named)

    do_GET = do_HEAD = do_POST = handle_hub


@contextmanager
def imitate(
    folder_of: Callable[[str], Path | None], # The files of a dataset by its name
    commits: Collection[str] = (), # Known besides `COMMIT`
    gated: Collection[str] = (), # Datasets whose files are refused
) -> Iterator[tuple[str, list[str]]]: # Its address, and what it was asked
    "A hub on a free port of this machine."
    handler = type("ThisHub", (Hub,), {"folder_of": staticmethod(folder_of), "commits": {COMMIT, *commits}, "gated": set(gated), "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try: yield f"http://127.0.0.1:{server.server_address[1]}", handler.asked
    finally: server.shutdown(); server.server_close()
