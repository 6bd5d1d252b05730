"""The command line of llama.cpp's server. Standard library only: the host imports it."""

from dataclasses import dataclass

# What keys and values may be kept in.
CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """What a server is asked to be; `context` counts the tokens of one slot.

    Port 0 lets the kernel choose a free one. `threads` 0 leaves the choice to llama.cpp. `device`
    holds every layer, and the server refuses to start without it; "" leaves that to llama.cpp, too,
    unless `gpu_layers` says how many lie on GPUs. `page` is the directory of the chat page.
    `template` is the file of a chat template instead of the model's own; with `splits_thinking`
    what that one shows as reasoning comes in a field of its own, and without it in the text.
    `adapters` are GGUF adapters, none applied until a request names its number. `alias` is the name
    that clients see. Of earlier prompts `prompt_cache_mib` are kept (None: llama.cpp's own choice).
    """

    host: str
    port: int
    context: int
    parallel: int
    threads: int
    web_page: bool
    api_key_file: str | None = None
    device: str = ""
    template: str = ""
    splits_thinking: bool = False
    cache_type: str = "f16"
    metrics: bool = False
    adapters: tuple[str, ...] = ()
    page: str = ""
    alias: str = ""
    gpu_layers: int | None = None
    prompt_cache_mib: int | None = None


def make_server_argv(server: str, gguf: str, settings: ServerSettings) -> list[str]:
    """Return the command that serves the file `gguf` with the program `server`."""
    argv = [server, "--model", gguf, "--host", settings.host, "--port", str(settings.port)]
    # The context is shared out evenly between the slots, and never shifted silently.
    argv += ["--ctx-size", str(settings.context * settings.parallel)]
    argv += ["--parallel", str(settings.parallel), "--no-kv-unified", "--no-context-shift"]
    argv += ["--jinja", "--reasoning-format", "deepseek" if settings.splits_thinking else "none"]
    # Without a key, a page of another origin could otherwise use the server through the browser.
    argv += ["--offline", "--no-slots", "--cors-origins", "localhost"]
    if settings.template:
        argv += ["--chat-template-file", settings.template]
    if settings.threads:
        argv += ["--threads", str(settings.threads), "--threads-batch", str(settings.threads)]
    if settings.cache_type != "f16":
        argv += ["--cache-type-k", settings.cache_type, "--cache-type-v", settings.cache_type]
        argv += ["--flash-attn", "on"]  # keys may be narrower without it, values not
    # An option each, since an engine knows an input at the beginning of a word. The server warns
    # that only the last counts, and loads all. Of scale 0: else a request that names none has all.
    argv += [word for path in settings.adapters for word in ("--lora-scaled", f"{path}:0")]
    if settings.metrics:
        argv += ["--metrics"]
    if settings.alias:
        argv += ["--alias", settings.alias]
    if settings.prompt_cache_mib is not None:
        argv += ["--cache-ram", str(settings.prompt_cache_mib)]
    if settings.page:
        argv += ["--path", settings.page]
    if not settings.web_page:
        argv += ["--no-webui"]
    if settings.device:
        argv += ["--device", settings.device, "--n-gpu-layers", "all", "--fit", "off"]
    elif settings.gpu_layers is not None:
        argv += ["--n-gpu-layers", str(settings.gpu_layers), "--fit", "off"]
    if settings.api_key_file is not None:
        argv += ["--api-key-file", settings.api_key_file]
    return argv
