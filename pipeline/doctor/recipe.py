"""What the recipe will need here, found without hashing or writing anything."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.artifact.rule import Rule
from pipeline.artifact.steps import close_over_inputs, find_missing
from pipeline.artifact.store import Store
from pipeline.data.source import HUB
from pipeline.doctor.finding import Finding, ok, problem, warning
from pipeline.doctor.situation import Needs, Situation
from pipeline.engine.image import CUDA, IMAGES
from pipeline.engine.network import find_token
from pipeline.errors import TristillError
from pipeline.estimate.estimate import Estimate, estimate
from pipeline.plan import list_images, list_targets, make_rules
from pipeline.project import read_project
from pipeline.recipe.dataset import DEMO
from pipeline.recipe.evaluate import list_exam_paths
from pipeline.recipe.recipe import Recipe, read_recipe
from pipeline.recipe.row_sources import list_row_paths
from pipeline.source_files import are_remembered


def read_needs(path: Path, store: Store) -> Needs:
    """Return what the recipe needs in the store, which may not exist.

    Raises UsageError for a recipe that cannot be meant.
    """
    recipe = read_recipe(path)
    sizes = estimate(recipe)
    rules = _make_rules_unhashed(recipe, sizes)
    sources = (recipe.base.source, *(rows.source for rows in recipe.dataset.sources))
    digests = store.root / ".digests.json"
    settled = all(are_remembered(path, digests) for path in _list_hashed(recipe))
    missing, damage = {rule.name: rule.needed_bytes for rule in rules}, None
    if settled:
        try:
            missing = _find_missing_bytes(path, store)
        except TristillError as error:
            damage = error
    return Needs(
        recipe=path.name,
        sources=sources,
        artifacts=len(rules),
        images=list_images(recipe),
        missing_bytes=missing,
        settled=settled,
        train_vram_bytes=sizes.train_vram_bytes,
        wants_gpu=any(IMAGES[name].accelerator == CUDA for name in list_images(recipe)),
        damage=damage,
    )


def _list_hashed(recipe: Recipe) -> list[Path]:
    """Return the user's files, and the base's directory, whose digests stand in keys."""
    source = recipe.base.source
    base = [] if source == DEMO or source.startswith(HUB) else [Path(source)]
    rows = [] if recipe.dataset.source == DEMO else list_row_paths(recipe.dataset)
    return [*base, *rows, *list_exam_paths(recipe.evaluate).values()]


def _make_rules_unhashed(recipe: Recipe, sizes: Estimate) -> Sequence[Rule]:
    """Return the rules of a plain build, with the recipe's sizes and the demonstration's sources:
    to make the user's own would hash their files."""
    asked = recipe.evaluate
    stand_in = replace(
        recipe,
        base=replace(recipe.base, source=DEMO),
        dataset=replace(recipe.dataset, source=DEMO, more=()),
        evaluate=replace(asked, rows=(), problems=asked.problems or len(asked.rows)),
    )
    rules = make_rules(stand_in, sizes, Path())
    names = close_over_inputs(rules, list_targets(rules, []))
    return [rule for rule in rules if rule.name in names]


def _find_missing_bytes(path: Path, store: Store) -> dict[str, int]:
    project = read_project(path, store)
    wanted = list_targets(project.rules, [])
    missing = find_missing(project.make_steps(wanted), wanted)
    return {step.rule.name: step.rule.needed_bytes for step in missing}


def check_recipe(seen: Situation) -> Finding:
    """The recipe is understood, and the store can be read."""
    needs = seen.needs
    if needs.damage is not None:
        error = needs.damage
        return problem("recipe", what=error.what, why=f"{error.on}: {error.why}", fix=error.then)
    if not needs.settled:
        return ok(
            "recipe",
            what=f"{needs.recipe}: {needs.artifacts} artifacts",
            why="its files are not hashed yet; until the first build all count as missing",
        )
    missing = len(needs.missing_bytes)
    told = f"{missing} still to be made" if missing else "nothing to build"
    return ok("recipe", what=f"{needs.recipe}: {needs.artifacts} artifacts, {told}")


def check_hub_token(seen: Situation) -> Finding | None:
    """A token lies ready where the recipe names a source on the hub. It is not read."""
    sources = [each for each in seen.needs.sources if each.startswith(HUB)]
    if not sources:
        return None
    if found := find_token(seen.machine.variables):
        return ok("hub-token", what=f"a Hugging Face token is in {found}")
    return warning(
        "hub-token",
        what="no Hugging Face token",
        why=f"{', '.join(sources)}: the hub refuses a gated one without it",
        fix="hf auth login",
    )
