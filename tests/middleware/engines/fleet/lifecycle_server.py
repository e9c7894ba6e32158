"""A process that lives as a vLLM does: says what it loads, answers, dies, hangs. Stdlib alone.

How it lives is in the environment: ``LIFE`` is a list of steps, one per start, the last of which
holds for all further starts; ``LIFE_COUNT`` names the file that counts the starts.

    well      answers at once
    slow      answers after half a second
    deaf      never answers
    ends      says what is wrong and ends with status 3
    stubborn  answers, and takes no SIGTERM
    parent    answers, and has a child that would live on
    starting  has one too, and never answers
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/die":
            os._exit(7)
        self._answer({"pid": os.getpid()} if self.path == "/health" else dict(os.environ))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        keyed = self.headers["Authorization"] == f"Bearer {os.environ['VLLM_API_KEY']}"
        print(f"answered {sorted(body)} keyed={keyed}", flush=True)
        self._answer({"choices": [{"text": " Rosebud.", "finish_reason": "stop"}]})

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def step() -> str:
    count = Path(os.environ["LIFE_COUNT"])
    n = len(count.read_text()) if count.exists() else 0
    count.write_text("x" * (n + 1))
    steps = os.environ["LIFE"].split()
    return steps[min(n, len(steps) - 1)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    given, _ = parser.parse_known_args()
    life = step()
    print("Starting to load model somewhere", flush=True)
    if life == "ends":
        print("out of memory, or so", flush=True)
        sys.exit(3)
    if life == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if life in ("parent", "starting"):
        kept = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print(f"self={os.getpid()}\nchild={kept.pid}", flush=True)
    if life in ("deaf", "starting"):
        time.sleep(600)
    if life == "slow":
        time.sleep(0.5)
    print("Using KV cache", flush=True)
    print(f"argv={sys.argv[1:]}", flush=True)
    ThreadingHTTPServer(("127.0.0.1", given.port), Answers).serve_forever()


if __name__ == "__main__":
    main()
