"""A web server of a folder, whose answers may be failures."""

from http.server import SimpleHTTPRequestHandler
from typing import Any


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder. What `fails`, by the start of its path, is answered with a status as often as its list says."""

    fails: dict[str, tuple[int, list[int]]] = {}
    folders = True

    def log_message(self, *_: Any) -> None:
        pass

    def send_head(self) -> Any:
        for start, (code, left) in self.fails.items():
            if self.path.startswith(start) and left[0]:
                left[0] -= 1
                return self.send_error(code)
        return super().send_head()

    def list_directory(self, path: Any) -> Any:
        return super().list_directory(path) if self.folders else self.send_error(404)
