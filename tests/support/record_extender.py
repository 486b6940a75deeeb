"""A scheduler extender that passes everything and writes down what kube-scheduler sends it.

How `tests/data/extender/` was made: start a scheduler with manifests/scheduler-config.yaml and its port changed, run
`python -m tests.support.record_extender PORT FOLDER`, create pods. One file per verb, number of names and pod name.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def _answer(verb: str, names: list[str]) -> bytes:
    if verb == "prioritize":
        return json.dumps([{"Host": name, "Score": 5} for name in names]).encode()
    return json.dumps({"NodeNames": names, "FailedNodes": {}, "FailedAndUnresolvableNodes": {}, "Error": ""}).encode()


class Recorder(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        args = json.loads(body)
        verb = self.path.rsplit("/", 1)[-1]
        path = self.folder / f"{verb}-{len(args['NodeNames'])}-{args['Pod']['metadata']['name']}.json"
        if not path.exists():
            path.write_bytes(body)
            headers = "".join(f"{name}: {value}\n" for name, value in self.headers.items())
            path.with_suffix(".headers").write_text(f"{self.requestline}\n{headers}")
        answer = _answer(verb, args["NodeNames"])
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    Recorder.folder = folder
    ThreadingHTTPServer(("127.0.0.1", port), Recorder).serve_forever()


if __name__ == "__main__":
    main()
