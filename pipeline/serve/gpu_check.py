"""`python -m pipeline.serve.gpu_check GGUF [DEVICE]`: one completion with every layer on a GPU.

A line PASS or FAIL. llama.cpp's server does not start without the device (CUDA0; none: the CPU,
to try the check itself).
"""

import json
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import StageError
from pipeline.serve.server import llama_server

_TOKENS = 32


def complete(gguf: Path, device: str) -> str:
    """Return what one completion was and how fast. Raises StageError when the server has none."""
    with llama_server(gguf, context=256, parallel=1, threads=0, device=device) as url:
        body = {"prompt": "What is 12 + 34?", "max_tokens": _TOKENS, "temperature": 0}
        request = urllib.request.Request(
            f"{url}/v1/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        started = time.monotonic()
        with urllib.request.urlopen(request, timeout=300) as answer:
            document = json.load(answer)
    count = document["usage"]["completion_tokens"]
    seconds = time.monotonic() - started
    return f"{count} tokens in {seconds:.2f} s, all layers on {device}"


def main(argv: Sequence[str]) -> int:
    """Ask for one completion; return 0 when it came."""
    device = argv[1] if len(argv) > 1 else "CUDA0"
    try:
        verdict, told = "PASS", complete(Path(argv[0]), device)
    except (OSError, StageError) as error:
        verdict, told = "FAIL", str(error)
    sys.stdout.write(f"{verdict} completion: {told}\n")
    return 0 if verdict == "PASS" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
