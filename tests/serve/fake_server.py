"""A stand-in for llama-server: its log line, /health and chat completions, and ways to misbehave.

It is run as a program. The "model" file it is given says in JSON how it behaves.
"""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Handler(BaseHTTPRequestHandler):
    behaviour: dict[str, Any]

    def do_GET(self) -> None:
        self.reply(200, {"status": "ok"})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        problem = " | ".join(message["content"] for message in request["messages"])
        if self.path == "/apply-template":
            self.reply(200, {"prompt": problem + self.behaviour.get("prompt_end", "")})
            return
        if problem in self.behaviour.get("refused", []):
            self.reply(400, {"error": {"message": "the request exceeds the context size"}})
            return
        if (faults := self.behaviour.get("faults", {}).get(problem)) and self.fail(faults):
            return
        # Later problems are answered sooner, so that order is not kept by chance.
        time.sleep(0.2 if problem == self.behaviour.get("slow") else 0.0)
        message = {"role": "assistant", **self.behaviour["answers"][problem]}
        finish = message.pop("finish_reason", "stop")
        self.reply(200, {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 7, "total_tokens": 8},
        })  # fmt: skip

    def fail(self, faults: list[str]) -> bool:
        """Be at fault in the next of the ways that are told; False when all have been."""
        match faults.pop(0) if faults else "":
            case "busy":
                self.reply(503, {"error": {"message": "loading"}})
            case "gone":
                self.close_connection = True
            case _:
                return False
        return True

    def reply(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    behaviour = json.loads(Path(sys.argv[sys.argv.index("--model") + 1]).read_text())
    Handler.behaviour = behaviour
    if "dies" in behaviour:
        sys.stderr.write(f"loading\nerror: {behaviour['dies']}\n")
        sys.exit(1)
    if "hangs" in behaviour:
        time.sleep(60)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    sys.stderr.write(f"0.01 I srv: listening on http://127.0.0.1:{server.server_port}\n")
    sys.stderr.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
