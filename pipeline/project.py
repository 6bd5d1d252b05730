"""A recipe and a store, opened together: what most verbs work on."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.artifact.engine import Engine
from pipeline.artifact.key import REPOSITORY, make_key, make_key_documents
from pipeline.artifact.links import write_link
from pipeline.artifact.rule import Rule
from pipeline.artifact.steps import Step, find_missing, find_sealed, make_steps
from pipeline.artifact.store import Artifact, Store, open_store
from pipeline.engine.image import IMAGES, make_environment_document
from pipeline.errors import TristillError
from pipeline.estimate import Estimate, estimate
from pipeline.log import say
from pipeline.plan import list_images, list_results, make_rules
from pipeline.recipe.recipe import Recipe, read_recipe

RECIPES = REPOSITORY / "recipes"


@dataclass(frozen=True, kw_only=True)
class Project:
    """A recipe's rules, the store that their artifacts lie in, and the engine ("": the best that is
    ready) that makes them."""

    recipe: Recipe
    estimate: Estimate
    rules: tuple[Rule, ...]
    store: Store
    engine_name: str = ""

    @cached_property
    def engine(self) -> Engine:
        """The engine, chosen when it is first needed: that asks Docker."""
        from pipeline.engine.choice import make_engine

        return make_engine(
            self.engine_name, images=list_images(self.recipe), limits=self.recipe.limits
        )

    @property
    def links(self) -> Path:
        """The directory of this recipe's links."""
        return self.store.out / self.recipe.name

    def make_steps(self, wanted: Sequence[str]) -> list[Step]:
        """Return the wanted artifacts and all that they come from."""
        return make_steps(self.rules, wanted, self.store, self.make_environments())

    def make_environments(self) -> dict[str, dict[str, object]]:
        """Return the document of each image that a rule names."""
        images = {rule.image for rule in self.rules}
        return {name: make_environment_document(IMAGES[name]) for name in images}

    def list_directories(self) -> set[str]:
        """Return the name of every directory that the recipe's artifacts have in the store."""
        documents = make_key_documents(self.rules, self.make_environments())
        return {f"{make_key(document)}-{name}" for name, document in documents.items()}

    def find_dispensable(self, wanted: Sequence[str] = ()) -> set[str]:
        """Return the names of the directories of sealed artifacts that the recipe's results and
        `wanted` were made from and that nothing which is still to be made needs."""
        results = [*list_results(self.rules), *wanted]
        steps = self.make_steps(results)
        needed = set(results)
        for step in find_missing(steps, results):
            needed |= set(step.rule.inputs.values())
        return {step.directory for step in steps if step.artifact and step.rule.name not in needed}

    def build(self, wanted: Sequence[str], *, jobs: int = 1) -> dict[str, Artifact]:
        """Build the wanted artifacts, each linked as soon as it is sealed; return all that is
        sealed then of them and what they come from."""
        steps = self.make_steps(wanted)
        missing = {step.rule.name for step in find_missing(steps, wanted)}
        if not missing:
            say(
                f"nothing to build: {', '.join(wanted)} {'are' if len(wanted) > 1 else 'is'} sealed"
            )
            sealed = find_sealed(steps)
            for artifact in sealed.values():
                write_link(self.links, artifact)
            return sealed
        # What builds and seals is imported when there is something to build: a build of nothing
        # would spend most of its time on it.
        from pipeline.artifact.build import build
        from pipeline.artifact.history import History

        history = History(self.store, self.recipe.name)
        return build(
            steps,
            wanted,
            self.store,
            self.engine,
            jobs=jobs,
            explain=lambda step: history.explain_build(step, missing),
            on_sealed=lambda artifact: write_link(self.links, artifact),
        )


def open_project(arguments: argparse.Namespace) -> Project:
    """Return what `--recipe`, `--store` and, for a verb that has it, `--engine` name."""
    engine_name = vars(arguments).get("engine", "")
    return read_project(arguments.recipe, open_store(arguments.store), engine_name=engine_name)


def read_project(path: Path, store: Store, *, engine_name: str = "") -> Project:
    """Return the recipe's project in a store."""
    recipe = read_recipe(path)
    sizes = estimate(recipe)
    rules = make_rules(recipe, sizes, store.root / ".digests.json")
    return Project(recipe=recipe, estimate=sizes, rules=rules, store=store, engine_name=engine_name)


def find_planned(store: Store, *, but: Path | None = None) -> set[str]:
    """Return the directories' names of every artifact that a recipe in `recipes/`, `but` one, asks
    for.

    A recipe that cannot be planned here, for want of its files, say, is named and passed over: what
    it has built keeps its links below `out/`.
    """
    planned: set[str] = set()
    for path in sorted(RECIPES.glob("*.toml")):
        if but is not None and path.resolve() == but.resolve():
            continue
        try:
            planned |= read_project(path, store).list_directories()
        except TristillError as error:
            say(f"{path.name} names nothing to keep here: {error.what} ({error.on})")
    return planned
