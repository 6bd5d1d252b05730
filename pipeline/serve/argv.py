"""The command line of llama.cpp's server. Standard library only: the host imports it for `serve`.

What is served is the file alone: its own chat template, answers as the model writes them, with the
`<think>` block in the text and not moved to another field.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """What a server is asked to be; `context` counts the tokens of one slot.

    Port 0 lets the kernel choose a free one. `threads` 0 leaves the choice to llama.cpp. `device`
    holds every layer, and the server refuses to start without it; "" leaves that to llama.cpp, too.
    """

    host: str
    port: int
    context: int
    parallel: int
    threads: int
    web_page: bool
    api_key_file: str | None = None
    device: str = ""


def make_server_argv(server: str, gguf: str, settings: ServerSettings) -> list[str]:
    """Return the command that serves the file `gguf` with the program `server`."""
    argv = [server, "--model", gguf, "--host", settings.host, "--port", str(settings.port)]
    # The context is shared out evenly between the slots, and never shifted silently.
    argv += ["--ctx-size", str(settings.context * settings.parallel)]
    argv += ["--parallel", str(settings.parallel), "--no-kv-unified", "--no-context-shift"]
    argv += ["--jinja", "--reasoning-format", "none", "--offline", "--no-slots"]
    # Without a key, a page of another origin could otherwise use the server through the browser.
    argv += ["--cors-origins", "localhost"]
    if settings.threads:
        argv += ["--threads", str(settings.threads), "--threads-batch", str(settings.threads)]
    if not settings.web_page:
        argv += ["--no-webui"]
    if settings.device:
        argv += ["--device", settings.device, "--n-gpu-layers", "all", "--fit", "off"]
    if settings.api_key_file is not None:
        argv += ["--api-key-file", settings.api_key_file]
    return argv
