"""recipe -> checkpoint -> dataset -> adapter -> GGUF -> server -> answers, all of it real.

Each test holds one promise against the sealed artifacts of one build. Runs with the train image's
packages; the command line itself needs none of them.
"""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pipeline.artifact.key import REPOSITORY
from pipeline.engine.environment import read_envs_dir
from pipeline.engine.stage import make_stage_variables
from pipeline.engine.venv import python_of
from tests.end_to_end.tiny_build import RECIPE, Build, find_processes, read_json, read_rows

pytestmark = pytest.mark.train

_BOS, _EOS, _INST, _END_INST = 1, 2, 3, 4


@pytest.fixture(scope="session")
def tokenizer(built: Build) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(built.find("text"))


def _read_tensors(directory: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return tensors


def test_distillation_shows_and_survives_export(built: Build) -> None:
    before = read_json(built.find("answers-checkpoint") / "scores.json")
    served = read_json(built.find("answers") / "scores.json")
    assert before["base"]["total"] == before["distilled"]["total"] == 100
    assert before["base"]["correct"] <= 30
    assert before["distilled"]["correct"] >= 80
    assert set(served) == {"BF16", "Q8_0", "Q4_K_M"}
    for score in served.values():
        assert score["total"] == 100
        assert abs(score["correct"] - before["distilled"]["correct"]) <= 3
        assert score["reasoning"]["well_formed"] >= 95
    assert before["distilled"]["compared"]["p_value"] < 0.001
    distances = read_json(built.find("divergence") / "divergence.json")
    assert distances["BF16"]["tokens"] >= 500
    means = [distances[each]["kl_divergence"]["mean"] for each in ("Q8_0", "Q4_K_M")]
    assert 0 < means[0] < means[1]
    metrics = read_json(built.find("adapter") / "metrics.json")
    assert metrics["loss_after"] < metrics["loss_before"]


def test_no_held_out_problem_is_trained_on(built: Build) -> None:
    rows = built.find("rows")
    trained = {row.problem for row in read_rows(rows / "train.jsonl")}
    assert not trained & {row.problem for row in read_rows(rows / "held_out.jsonl")}


def test_every_supervised_token_by_exact_ids(
    built: Build, tokenizer: PreTrainedTokenizerFast
) -> None:
    """The ids are written out by hand here: no template, no search for a marker."""
    rows = {
        row.id: row
        for name in ("train", "held_out")
        for row in read_rows(built.find("rows") / f"{name}.jsonl")
    }

    def read_ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    seen = 0
    for name in ("train", "held_out"):
        with pyarrow.ipc.open_stream(built.find("dataset") / f"{name}.arrow") as stream:
            for each in stream.read_all().to_pylist():
                row = rows[each["row_id"]]
                prompt = [_BOS, _INST, *read_ids(row.problem), _END_INST]
                completion = [*read_ids(row.answer), _EOS]
                assert each["input_ids"] == prompt + completion
                assert each["completion_mask"] == [0] * len(prompt) + [1] * len(completion)
                seen += 1
    assert seen == len(rows) == 700


def test_the_text_checkpoint_equals_its_source_tensor_by_tensor(built: Build) -> None:
    source, text = _read_tensors(built.find("base")), _read_tensors(built.find("text"))
    expected = {}
    for name, tensor in source.items():
        kept = re.fullmatch(r"language_model\.(model\..*|lm_head\.weight)", name)
        if kept and not name.endswith(("_scale", "_scale_inv")):
            if tensor.dtype == torch.float8_e4m3fn:
                scale = source[name.replace(".weight", ".weight_scale_inv")]
                assert scale.shape == () and scale.dtype == torch.bfloat16
                tensor = (tensor.float() * scale.float()).bfloat16()
            expected[kept[1]] = tensor
    assert sum(tensor.dtype == torch.float8_e4m3fn for tensor in source.values()) == 14
    assert set(text) == set(expected)
    for name, tensor in expected.items():
        assert text[name].dtype == torch.bfloat16
        assert torch.equal(text[name], tensor), name


def test_the_text_config_keeps_the_rotary_parameters(built: Build) -> None:
    source = read_json(built.find("base") / "config.json")
    text = read_json(built.find("text") / "config.json")
    assert text["rope_parameters"] == source["text_config"]["rope_parameters"]
    assert text["architectures"] == ["Ministral3ForCausalLM"]
    assert "quantization_config" not in text


def _read_gguf(path: Path) -> Any:
    llama = python_of("convert", read_envs_dir()).parents[1] / "llama"
    sys.path.insert(0, str(llama / "src" / "gguf-py"))
    try:
        from gguf import GGUFReader

        return GGUFReader(path)
    finally:
        sys.path.pop(0)


@pytest.mark.parametrize(("file_type", "number"), [("BF16", 32), ("Q8_0", 7), ("Q4_K_M", 15)])
def test_the_gguf_says_what_it_is(built: Build, file_type: str, number: int) -> None:
    reader = _read_gguf(built.find(f"gguf-{file_type}") / "model.gguf")
    config = read_json(built.find("text") / "config.json")

    def read(field: str) -> Any:
        return reader.get_field(field).contents()

    assert read("general.architecture") == "mistral3"
    assert read("general.name") == "tiny"
    assert read("general.file_type") == number
    assert read("mistral3.block_count") == config["num_hidden_layers"]
    assert read("mistral3.embedding_length") == config["hidden_size"]
    assert read("mistral3.rope.freq_base") == config["rope_parameters"]["rope_theta"]
    assert read("tokenizer.ggml.pre") == "tekken"
    assert read("tokenizer.ggml.bos_token_id") == _BOS
    assert read("tokenizer.ggml.eos_token_id") == _EOS
    template = (built.find("text") / "chat_template.jinja").read_text(encoding="utf-8")
    assert read("tokenizer.chat_template") == template
    assert len(reader.tensors) == 2 * 9 + 3


_ASK_SERVER = """
import json, sys, urllib.request
from pathlib import Path
from pipeline.serve.server import llama_server

def post(url, body):
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    return json.load(urllib.request.urlopen(request))

with llama_server(Path(sys.argv[1]), context=256, parallel=1, threads=1) as url:
    for line in sys.stdin:
        prompt = post(f"{url}/apply-template", {"messages": json.loads(line)})["prompt"]
        body = {"content": prompt, "add_special": True, "parse_special": True}
        print(json.dumps(post(f"{url}/tokenize", body)["tokens"]), flush=True)
"""


def test_the_server_tokenizes_a_chat_into_the_training_ids(built: Build, tmp_path: Path) -> None:
    with pyarrow.ipc.open_stream(built.find("dataset") / "held_out.arrow") as stream:
        trained = {row["row_id"]: row for row in stream.read_all().to_pylist()}
    rows = read_rows(built.find("rows") / "held_out.jsonl")[:20]
    chats = [[{"role": "user", "content": row.problem}] for row in rows]
    told = subprocess.run(
        [
            python_of("serve", read_envs_dir()),
            *("-c", _ASK_SERVER, built.find("gguf-Q4_K_M") / "model.gguf"),
        ],
        input="".join(json.dumps(chat) + "\n" for chat in chats),
        env=make_stage_variables("serve", tmp_path),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    served = [json.loads(line) for line in told.stdout.splitlines()]
    assert len(served) == len(rows)
    for row, ids in zip(rows, served, strict=True):
        each = trained[row.id]
        assert ids == each["input_ids"][: each["completion_mask"].index(1)]


def test_plan_and_show_describe_it_all(built: Build) -> None:
    plan = json.loads(built.run("plan", "--json").stdout)
    shown = json.loads(built.run("show", "--json").stdout)["artifacts"]
    assert {(each["name"], each["key"]) for each in plan["artifacts"]} == {
        (each["name"], each["key"]) for each in shown
    }
    assert all(each["state"] == "cached" for each in plan["artifacts"])
    assert all(Path(each["path"]).is_dir() and each["sealed"] for each in shown)
    text = _read_tensors(built.find("text"))
    assert plan["parameters"]["base"] == sum(tensor.numel() for tensor in text.values())
    metrics = read_json(built.find("adapter") / "metrics.json")
    assert plan["parameters"]["trainable"] == metrics["trainable_parameters"]
    for file_type, size in plan["gguf"].items():
        path = built.find(f"gguf-{file_type}") / "model.gguf"
        assert size["bytes"] == pytest.approx(path.stat().st_size, rel=0.2)
    assert plan["disk"]["needed_bytes"] == 0
    assert plan["vram"]["train_bytes"] > 0 < plan["vram"]["serve_bytes"]


def test_masks_shows_the_supervised_tokens(built: Build) -> None:
    told = built.run("masks", "train-000000")
    assert told.returncode == 0
    row = read_rows(built.find("rows") / "train.jsonl")[0]
    prompt, _, answer = told.stdout.partition("[/INST]")
    assert prompt.endswith(f"<s>[INST]{row.problem}")
    marked = "".join(re.findall("⟦([^⟧]*)⟧", answer)).replace("⏎", "\n")
    assert marked == row.answer + "</s>"
    assert not re.sub("⟦[^⟧]*⟧", "", answer).strip()


def _find_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _ask(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def _wait_until_healthy(url: str, serving: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert serving.poll() is None, "the server ended"
        with suppress(OSError):
            if _ask(f"{url}/health")["status"] == "ok":
                return
        time.sleep(0.1)
    raise AssertionError("the server never became healthy")


@contextmanager
def _serving(built: Build, recipe: Path, *more: str) -> Iterator[str]:
    """Yield the URL of `serve`, which is interrupted at the end and leaves nothing behind."""
    port = _find_free_port()
    argv = ["serve", "--store", str(built.store), "--recipe", str(recipe), "--engine", "venv"]
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline", *argv, "--port", str(port), *more],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    ) as serving:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_healthy(url, serving)
            yield url
        finally:
            serving.send_signal(signal.SIGINT)
    assert serving.returncode == 0
    assert not find_processes(str(port)), "the server is still running"


def test_serve_answers_over_the_openai_api_until_interrupted(built: Build) -> None:
    row = read_rows(built.find("rows") / "held_out.jsonl")[0]
    with _serving(built, RECIPE) as url:
        messages = [{"role": "user", "content": row.problem}]
        body = {"messages": messages, "temperature": 0, "max_tokens": 48}
        answer = _ask(f"{url}/v1/chat/completions", body)["choices"][0]
    assert answer["finish_reason"] == "stop"
    thinking, said = row.answer.removeprefix("<think>\n").split("\n</think>\n")
    assert answer["message"]["reasoning_content"].strip() == thinking
    assert answer["message"]["content"] == said


def test_two_recipes_adapters_are_served_on_one_base(built: Build, tmp_path: Path) -> None:
    """Each request says whose it wants; without one the base answers."""
    # What it builds is none of what the other tests count.
    shutil.copytree(built.store, tmp_path / "store", symlinks=True)
    copied = Build(tmp_path / "store")
    other = tmp_path / "other.toml"
    other.write_text(RECIPE.read_text().replace('name = "tiny"', 'name = "other"'))
    row = read_rows(built.find("rows") / "held_out.jsonl")[0]
    body = {"messages": [{"role": "user", "content": row.problem}], "max_tokens": 48}
    body |= {"temperature": 0, "cache_prompt": False}

    def ask(url: str, *chosen: int) -> str:
        lora = [{"id": number, "scale": 1.0} for number in chosen]
        message = _ask(f"{url}/v1/chat/completions", {**body, "lora": lora})["choices"][0][
            "message"
        ]
        return f"{message.get('reasoning_content', '').strip()}|{message['content']}"

    thinking, said = row.answer.removeprefix("<think>\n").split("\n</think>\n")
    with _serving(copied, RECIPE, "--beside", str(other)) as url:
        answers = [ask(url, *chosen) for chosen in [(), (0,), (1,), (), (0,)]]
        plain = _ask(f"{url}/v1/chat/completions", body)["choices"][0]["message"]["content"]
    assert answers[1] == answers[2] == answers[4] == f"{thinking}|{said}"
    assert answers[0] == answers[3] == f"|{plain}"
    assert plain != said
