"""`serve`: the recipe's GGUF over the OpenAI-compatible API."""

import argparse

from pipeline.artifact.uses import using
from pipeline.log import say
from pipeline.project import open_project
from pipeline.serve.argv import ServerSettings, make_server_argv


def run(arguments: argparse.Namespace) -> int:
    """Serve the recipe's GGUF over the OpenAI-compatible API until interrupted."""
    project = open_project(arguments)
    settings = project.recipe.serve
    wanted = f"gguf-{settings.type}"
    with using(project.store, [step.directory for step in project.make_steps([wanted])]):
        sealed = project.build([wanted])
        project.engine.prepare([settings.image])
        say(f"serving {wanted} on http://127.0.0.1:{settings.port} (Ctrl-C stops it)")
        gguf = sealed[wanted].path / "model.gguf"
        argv = make_server_argv(
            "llama/bin/llama-server",
            str(gguf),
            ServerSettings(
                host=project.engine.listens_on,
                port=settings.port,
                context=settings.context,
                parallel=settings.parallel,
                threads=0,
                web_page=False,
            ),
        )
        return project.engine.interact(
            settings.image,
            argv,
            inputs=[gguf],
            port=settings.port,
            gpus=settings.accelerator == "cuda",
        )


def preview(arguments: argparse.Namespace) -> None:
    """Show the plan of the file that would be served."""
    from pipeline.verbs.plan import show

    project = open_project(arguments, planning=True)
    settings = project.recipe.serve
    show(project, [f"gguf-{settings.type}"])
    say(f"gguf-{settings.type} would be served on http://127.0.0.1:{settings.port}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The recipe says it all."""
