"""`serve`: the recipe's GGUF over the OpenAI-compatible API, and a chat page."""

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from pipeline.artifact.uses import using
from pipeline.artifact.workspace import make_workspace
from pipeline.data.style import THINKING
from pipeline.errors import StageError, UsageError
from pipeline.log import say
from pipeline.project import Project, open_project, read_project
from pipeline.serve.access import LOOPBACK, Access, make_access, require_free_port
from pipeline.serve.argv import ServerSettings, make_server_argv
from pipeline.serve.capacity import (
    Load,
    Room,
    count_gpu_layers,
    count_prompt_cache_mib,
    require_cache_type,
    require_room,
)
from pipeline.serve.chat_page import make_chat_page
from pipeline.serve.gguf_file import GgufFile, read_gguf
from pipeline.serve.room import read_room
from pipeline.serve.running import finish_requests, tell_when_ready
from pipeline.serve.thinking import fold_thinking

_BASE = "base-gguf"
_ADAPTER = "adapter-gguf"


def run(arguments: argparse.Namespace) -> int:
    """Serve the recipe's GGUF over the OpenAI-compatible API until interrupted."""
    project = open_project(arguments)
    port = arguments.port or project.recipe.serve.port
    access = make_access(arguments.host, port, arguments.api_key_file)
    require_free_port(access.address, access.port)
    if arguments.gguf:
        _require_recipes_own(read_gguf(arguments.gguf), project)
        return _serve(project, access, arguments.gguf.resolve(), [])
    if arguments.beside:
        return _serve_adapters(project, access, arguments.beside)
    wanted = f"gguf-{project.recipe.serve.type}"
    with _built(project, wanted) as directory:
        return _serve(project, access, directory / "model.gguf", [])


def _serve_adapters(project: Project, access: Access, beside: list[Path]) -> int:
    """Serve the base, with this recipe's adapter and those of the others, none of them applied."""
    _require_adapter(project)
    if _BASE not in {rule.name for rule in project.rules}:
        raise UsageError(
            "adapters cannot be served on this type",
            on=f"[serve] type = {project.recipe.serve.type}",
            why="it needs an importance matrix, and the base alone has none",
            then="name another [serve] type, such as Q4_K_M, in all the recipes",
        )
    others = [read_project(path, project.store, engine_name=project.engine_name) for path in beside]
    for other in others:
        _require_adapter(other)
        _require_same_base(project, other)
    with ExitStack() as kept:
        gguf = kept.enter_context(_built(project, _BASE)) / "model.gguf"
        directories = [kept.enter_context(_built(each, _ADAPTER)) for each in (project, *others)]
        return _serve(project, access, gguf, [each / "adapter.gguf" for each in directories])


def _require_adapter(project: Project) -> None:
    if project.recipe.train.result != "adapter":
        raise UsageError(
            "the recipe has no adapter to serve beside others",
            on=f"{project.recipe.name}, [train] method = {project.recipe.train.method}",
            why="its weights were trained whole",
            then="serve it apart, on its own --port",
        )


def _require_same_base(project: Project, other: Project) -> None:
    """Compare the keys of the two base files: base, type and chat template are in them."""
    first, second = (
        {step.rule.name: step.directory for step in each.make_steps([_BASE])}
        if _BASE in {rule.name for rule in each.rules}
        else {}
        for each in (project, other)
    )
    if first.get(_BASE) == second.get(_BASE):
        return
    differs = "base" if first["base"] != second.get("base") else "[serve] type or chat template"
    raise UsageError(
        "adapters of different bases cannot share one",
        on=f"{project.recipe.name} and {other.recipe.name}",
        why=f"their {differs} is not the same",
        then="serve them apart, each on its own --port",
    )


def _require_recipes_own(gguf: GgufFile, project: Project) -> None:
    if gguf.name != project.recipe.gguf.name:
        raise UsageError(
            "the GGUF is not this recipe's",
            on=str(gguf.path),
            why=f"it calls itself {gguf.name!r}, and the recipe {project.recipe.gguf.name!r}",
            then="name its recipe by --recipe; `show --provenance FILE` says what made a file",
        )


@contextmanager
def _built(project: Project, wanted: str) -> Iterator[Path]:
    """Yield the directory of an artifact, which no collection removes meanwhile."""
    with using(project.store, [step.directory for step in project.make_steps([wanted])]):
        yield project.build([wanted])[wanted].path


def _serve(project: Project, access: Access, gguf: Path, adapters: list[Path]) -> int:
    model = read_gguf(gguf)
    settings = project.recipe.serve
    room = read_room(settings.accelerator, project.recipe.limits, project.engine.name)
    load = Load(
        gguf=model,
        context=settings.context,
        parallel=settings.parallel,
        cache_type=settings.cache_type,
    )
    require_cache_type(load)
    require_room(load, room)
    project.engine.prepare([settings.image])
    # A build may have taken hours.
    require_free_port(access.address, access.port)
    # Beside the artifacts: Docker sees every file there.
    with make_workspace(project.store.workspaces, "serve") as folder:
        splits = settings.reasoning == "split" and bool(model.chat_template)
        # A template that writes thinking itself, in chunks or from a field, says how.
        folds = splits and project.recipe.dataset.thinking == THINKING[0]
        template = _write_template(model, folder) if folds else ""
        page = project.engine.chat_page or _write_page(folder / "page")
        made = _make_settings(project, access, load, room, adapters)
        made = replace(made, template=template, splits_thinking=splits, page=page)
        return _run(project, access, gguf, made)


def _write_page(folder: Path) -> str:
    """Write our own chat page where the engine's image has none."""
    folder.mkdir()
    (folder / "index.html").write_text(make_chat_page(), encoding="utf-8")
    return str(folder)


def _write_template(model: GgufFile, folder: Path) -> str:
    """Write the chat template with which the server tells `<think>` apart."""
    path = folder / "template.jinja"
    path.write_text(fold_thinking(model.chat_template), encoding="utf-8")
    return str(path)


def _make_settings(
    project: Project, access: Access, load: Load, room: Room, adapters: list[Path]
) -> ServerSettings:
    settings, engine = project.recipe.serve, project.engine
    return ServerSettings(
        # In a container every address is its own; which of this host's leads there, Docker says.
        host=access.address if engine.listens_on == LOOPBACK else engine.listens_on,
        port=access.port,
        context=settings.context,
        parallel=settings.parallel,
        threads=0,
        web_page=True,
        api_key_file=str(access.key_file) if access.key_file else None,
        cache_type=settings.cache_type,
        metrics=settings.metrics,
        adapters=tuple(map(str, adapters)),
        alias=project.recipe.name.replace(",", "-"),
        gpu_layers=count_gpu_layers(load, room) if room.gpu_bytes else None,
        prompt_cache_mib=count_prompt_cache_mib(load, room, settings.prompt_cache_mib),
    )


def _run(project: Project, access: Access, gguf: Path, settings: ServerSettings) -> int:
    files = [gguf, *settings.adapters, settings.template, settings.api_key_file]
    say(f"serving {gguf} at {access.address} port {access.port} (Ctrl-C stops it)")
    for number, adapter in enumerate(settings.adapters):
        say(f'  "lora": [{{"id": {number}, "scale": 1}}] in a request: {adapter}')
    try:
        with tell_when_ready(access):
            code = project.engine.interact(
                project.recipe.serve.image,
                make_server_argv("llama/bin/llama-server", str(gguf), settings),
                inputs=[Path(each) for each in files if each],
                port=access.port,
                address=access.address,
                before_end=lambda: finish_requests(access),
                gpus=project.recipe.serve.accelerator == "cuda",
            )
    except KeyboardInterrupt:
        say("the server has stopped")
        return 0
    if code == 0:
        return 0
    raise StageError(
        "the server ended by itself",
        on=str(gguf),
        why=f"exit code {code}; see its words above",
        then="free memory, or use a smaller type or context; `verify` finds a damaged file",
    )


def preview(arguments: argparse.Namespace) -> None:
    """Show the plan of the file that would be served."""
    from pipeline.verbs.plan import show

    project = open_project(arguments, planning=True)
    settings = project.recipe.serve
    show(project, [f"gguf-{settings.type}"])
    say(f"gguf-{settings.type} would be served on http://127.0.0.1:{settings.port}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The recipe says what is served; where, and to whom, is this host's affair."""
    parser.add_argument(
        "--host",
        default=LOOPBACK,
        metavar="ADDRESS",
        help="address to listen on; beyond the loopback only with --api-key-file",
    )
    parser.add_argument("--port", type=_parse_port, metavar="N", help="instead of the recipe's")
    parser.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help="a file of keys, one a line"
    )
    model = parser.add_mutually_exclusive_group()
    model.add_argument(
        "--gguf", type=Path, metavar="FILE", help="a copy of the recipe's GGUF: nothing is built"
    )
    model.add_argument(
        "--beside",
        type=Path,
        action="append",
        metavar="RECIPE",
        help="serve the base with this recipe's adapter and that one's, chosen by each request",
    )


def _parse_port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"invalid port {text!r}: 1 to 65535")
    return int(text)
