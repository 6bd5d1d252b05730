"""`images`: the container images of this checkout: built once, fetched, sent, listed, compared."""

import argparse
import sys

from pipeline.engine import docker_client
from pipeline.engine.container_image import NAMES, make_tag, sum_wheel_bytes
from pipeline.engine.image_build import Variant, provide
from pipeline.engine.image_check import check
from pipeline.engine.image_registry import Registry
from pipeline.errors import UsageError
from pipeline.log import say
from pipeline.plan import list_images
from pipeline.recipe.recipe import read_recipe
from pipeline.report.table import format_bytes, format_table
from pipeline.verbs.choice import one_of


def run(arguments: argparse.Namespace) -> None:
    """Build the images that are missing, pull or push them, list them, or check one."""
    docker_client.read_daemon()
    variants = [
        Variant(name=name, base=arguments.base)
        for name in arguments.image or list_images(read_recipe(arguments.recipe))
    ]
    if arguments.what == "list":
        sys.stdout.write(_list(variants))
        return
    registry = Registry(address=arguments.registry) if arguments.registry else None
    if arguments.what in ("pull", "push") and registry is None:
        raise UsageError(
            f"there is no registry to {arguments.what}",
            on="--registry",
            why="none is given",
            then=f"make {arguments.what} REGISTRY=registry.example/somebody",
        )
    for variant in variants:
        _act(arguments.what, variant, registry)


def preview(arguments: argparse.Namespace) -> None:
    """List the images that would be dealt with; Docker is not asked."""
    for name in arguments.image or list_images(read_recipe(arguments.recipe, planning=True)):
        say(f"{arguments.what}: {make_tag(name)}")


def _act(what: str, variant: Variant, registry: Registry | None) -> None:
    if what == "build":
        provide(variant, registry)
    elif what == "check":
        sys.stdout.write(check(variant))
    elif registry:
        act = registry.pull if what == "pull" else registry.push
        act(variant.name)


def _list(variants: list[Variant]) -> str:
    """Return a line per image: its tag, the size and id of this host's, if there is one, and what
    its wheels come to, where that is known."""
    here = {
        tag: image
        for image in docker_client.read_images([variant.tag for variant in variants])
        for tag in image["RepoTags"]
    }
    rows = []
    for variant in variants:
        image = here.get(variant.tag)
        wheels = sum_wheel_bytes(variant.name)
        rows.append(
            (
                variant.tag,
                format_bytes(image["Size"]) if image else "-",
                format_bytes(wheels) if wheels else "-",
                image["Id"].removeprefix("sha256:")[:12] if image else "not here",
            )
        )
    return format_table(("image", "bytes", "wheels", "id"), rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("build", "pull", "push", "list", "check"))
    about = f"{', '.join(NAMES)}; without any, those that the recipe's stages run in"
    parser.add_argument("image", nargs="*", type=one_of(NAMES), metavar="IMAGE", help=about)
    parser.add_argument("--registry", default="", help="such as registry.example/somebody")
    parser.add_argument("--base", default="", metavar="IMAGE", help="instead of the pinned Debian")
