"""A recipe and a store, opened together: what most verbs work on."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifact.engine import Engine
from pipeline.artifact.key import REPOSITORY, make_key, make_key_documents
from pipeline.artifact.links import write_link, write_named_link
from pipeline.artifact.rule import Rule
from pipeline.artifact.steps import Step, find_missing, find_sealed, make_steps
from pipeline.artifact.store import Artifact, Store, open_store
from pipeline.engine.image import IMAGES, make_environment_document
from pipeline.errors import HostError, TristillError
from pipeline.estimate.estimate import Estimate, estimate
from pipeline.log import say
from pipeline.plan import list_images, list_results, make_rules
from pipeline.recipe.recipe import Recipe, read_recipe
from pipeline.recipe.sources_at_hand import find_absent
from pipeline.rules.training import TRAINING, TRAINING_STAGE

if TYPE_CHECKING:
    from pipeline.estimate.outlook import Outlook

RECIPES = REPOSITORY / "recipes"
TRAINING_REPORT = "training.html"


@dataclass(frozen=True, kw_only=True)
class Project:
    """A recipe's rules, the store that their artifacts lie in, and the engine ("": the best that is
    ready) that makes them.

    `absent` says of artifacts whose sources are not at hand why: only a plan is made without them.
    """

    recipe: Recipe
    estimate: Estimate
    rules: tuple[Rule, ...]
    store: Store
    engine_name: str = ""
    absent: Mapping[str, str] = field(default_factory=dict)

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

    def find_training_step(self) -> Step:
        """Return the step that trains."""
        trains = next(rule.name for rule in self.rules if rule.stage == TRAINING_STAGE)
        return self.make_steps([trains])[-1]

    def list_directories(self) -> set[str]:
        """Return the name of every directory that the recipe's artifacts have in the store."""
        documents = make_key_documents(self.rules, self.make_environments())
        return {f"{make_key(document)}-{name}" for name, document in documents.items()}

    def find_unkeyed(self) -> dict[str, str]:
        """Return the artifacts whose keys cannot be known, since a source of theirs is not at hand,
        and why."""
        found = dict(self.absent)
        for rule in self.rules:
            for name in rule.inputs.values():
                if name in found:
                    found.setdefault(rule.name, found[name])
        return found

    def make_outlook(self, *, price: float | None = None) -> "Outlook":
        """Return memory, time and cost of the recipe; `price` is that of one card for an hour."""
        from pipeline.estimate.outlook import make_outlook  # a build has no need of it
        from pipeline.estimate.rows import count_rows, read_sealed_rows

        sealed = None
        if "dataset" not in self.find_unkeyed():
            (step,) = [each for each in self.make_steps(["dataset"]) if each.rule.name == "dataset"]
            sealed = step.artifact and read_sealed_rows(step.artifact.path)
        rows = sealed or count_rows(self.recipe)
        return make_outlook(self.recipe, self.estimate, rows=rows, price=price)

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
                self._link(artifact, steps)
            return sealed
        if TRAINING in missing:
            require_reachable(self)
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
            on_sealed=lambda artifact: self._link(artifact, steps),
        )

    def _link(self, artifact: Artifact, steps: Sequence[Step]) -> None:
        """Link a sealed artifact; that of the training has a report, which is made when missing."""
        write_link(self.links, artifact)
        (step,) = (each for each in steps if each.rule.name == artifact.name)
        if step.rule.stage != TRAINING_STAGE:
            return
        report = self.store.report_path(artifact.key, artifact.name)
        if not report.exists():
            from pipeline.report.training_page import write_report

            write_report(self.recipe.name, step, self.store)
            say(f"{artifact.name}: the run as a page is {self.links / TRAINING_REPORT}")
        if report.exists():
            write_named_link(self.links, TRAINING_REPORT, report)


def require_reachable(project: Project) -> None:
    """Raise HostError when several hosts are to train together and this one cannot be reached."""
    train = project.recipe.train
    if train.hosts > 1 and project.engine.name == "docker":
        raise HostError(
            "a container cannot train with other hosts",
            on=f"train.hosts = {train.hosts}, engine docker",
            why="a stage's container has no network",
            then="name another engine: --engine venv, or --engine here in a container of the image",
        )


def open_project(arguments: argparse.Namespace, *, planning: bool = False) -> Project:
    """Return what `--recipe`, `--store` and, for a verb that has it, `--engine` name."""
    engine_name = vars(arguments).get("engine", "")
    store = open_store(arguments.store)
    return read_project(arguments.recipe, store, engine_name=engine_name, planning=planning)


def read_project(
    path: Path, store: Store, *, engine_name: str = "", planning: bool = False
) -> Project:
    """Return the recipe's project in a store; `planning` takes it without its sources, too."""
    recipe = read_recipe(path, planning=planning)
    sizes = estimate(recipe, planning=planning)
    digests = store.root / ".digests.json"
    absent = find_absent(recipe, digests) if planning else {}
    return Project(
        recipe=recipe,
        estimate=sizes,
        rules=make_rules(recipe, sizes, digests, absent=absent),
        store=store,
        engine_name=engine_name,
        absent=absent,
    )


def find_planned(store: Store, *, but: Path | None = None) -> set[str]:
    """Return the directories' names of every artifact that a recipe in `recipes/`, `but` one, asks
    for.

    What is made from a source that is not here, or was never hashed, is passed over: of the first,
    what was built keeps its links below `out/`; from the second, nothing was. A recipe that cannot
    be planned is named.
    """
    planned: set[str] = set()
    for path in sorted(RECIPES.glob("*.toml")):
        if but is not None and path.resolve() == but.resolve():
            continue
        try:
            project = read_project(path, store, planning=True)
        except TristillError as error:
            say(f"{path.name} names nothing to keep here: {error.what} ({error.on})")
            continue
        unkeyed = project.find_unkeyed()
        names = project.list_directories()
        planned |= {name for name in names if name.partition("-")[2] not in unkeyed}
    return planned
