"""`watch`: the training run as a page in the browser, live while it goes on."""

import argparse
import sys
from pathlib import Path

from pipeline.errors import HostError
from pipeline.log import say
from pipeline.project import open_project
from pipeline.report.training import Run, read_run
from pipeline.report.training_page import make_page
from pipeline.report.training_server import PageServer


def run(arguments: argparse.Namespace) -> None:
    """Show the training run as a page, live while it goes on."""
    project = open_project(arguments)
    step = project.find_training_step()

    def read() -> Run:
        return read_run(project.recipe.name, step, project.store)

    if arguments.save:
        _save(read(), arguments.save)
        return
    try:
        server = PageServer(arguments.port, read)
    except OSError as error:
        raise HostError(
            "the page cannot be served",
            on=f"127.0.0.1:{arguments.port}",
            why=error.strerror or str(error),
            then="name another port with --port N, or write the page: --save FILE",
        ) from error
    with server:
        say(f"the training of {project.recipe.name}: {server.address} (Ctrl-C stops watching)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("watching has ended; a training that runs goes on")


def preview(arguments: argparse.Namespace) -> None:
    """Say where the page would be."""
    say(
        f"would write {arguments.save}"
        if arguments.save
        else f"would serve 127.0.0.1:{arguments.port}"
    )


def _save(found: Run, path: Path) -> None:
    path.write_text(make_page(found), encoding="utf-8")
    sys.stdout.write(f"{path}\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=8090, metavar="N", help="0: any free one")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the page and end")
