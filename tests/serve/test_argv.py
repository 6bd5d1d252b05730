"""The server's command line, word by word."""

from pipeline.serve.argv import ServerSettings, make_server_argv


def test_a_page_for_people() -> None:
    settings = ServerSettings(
        host="127.0.0.1",
        port=8080,
        context=4096,
        parallel=2,
        threads=0,
        web_page=True,
        api_key_file="/keys",
    )
    assert " ".join(make_server_argv("llama-server", "model.gguf", settings)) == (
        "llama-server --model model.gguf --host 127.0.0.1 --port 8080 --ctx-size 8192 --parallel 2 "
        "--no-kv-unified --no-context-shift --jinja --reasoning-format none --offline --no-slots "
        "--cors-origins localhost --api-key-file /keys"
    )


def test_an_evaluation() -> None:
    settings = ServerSettings(
        host="127.0.0.1", port=0, context=512, parallel=1, threads=3, web_page=False
    )
    argv = make_server_argv("llama-server", "model.gguf", settings)
    assert argv[-5:] == ["--threads", "3", "--threads-batch", "3", "--no-webui"]
    assert "--api-key-file" not in argv


def test_what_a_recipe_may_choose() -> None:
    settings = ServerSettings(
        host="::1",
        port=1,
        context=64,
        parallel=1,
        threads=0,
        web_page=True,
        template="/t.jinja",
        splits_thinking=True,
        cache_type="q8_0",
        metrics=True,
        adapters=("/a.gguf", "/b.gguf"),
        page="/page",
        alias="mine",
        gpu_layers=7,
        prompt_cache_mib=64,
    )
    assert " ".join(make_server_argv("llama-server", "model.gguf", settings)[11:]) == (
        "--no-kv-unified --no-context-shift --jinja --reasoning-format deepseek --offline "
        "--no-slots --cors-origins localhost --chat-template-file /t.jinja --cache-type-k q8_0 "
        "--cache-type-v q8_0 --flash-attn on --lora-scaled /a.gguf:0 --lora-scaled /b.gguf:0 "
        "--metrics --alias mine --cache-ram 64 --path /page --n-gpu-layers 7 --fit off"
    )
