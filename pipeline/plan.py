"""recipe -> the rules, in order, on one screen: with `rules/`, all that knows both sides.

A rule says which stage makes an artifact, in which image, from what. Everything that may change an
artifact's bytes stands in its options; where it lies does not.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

from pipeline.artifact.rule import Rule
from pipeline.estimate.estimate import Estimate
from pipeline.recipe.recipe import Recipe
from pipeline.recipe.train import RESULTS
from pipeline.rules.conversion import (
    make_chat_rule,
    make_gguf_rules,
    make_imatrix_rules,
    make_merge_rules,
)
from pipeline.rules.judging import make_answers_rules, make_divergence_rules
from pipeline.rules.sources import make_base, make_fetches, make_rows
from pipeline.rules.training import (
    TRAINING,
    make_dataset,
    make_dataset_report,
    make_text,
    make_training_rules,
)


def make_rules(
    recipe: Recipe, estimate: Estimate, digests: Path, *, absent: Collection[str] = ()
) -> tuple[Rule, ...]:
    """Return the recipe's rules in an order that builds.

    `digests` is the file that remembers the sha256 of the user's own files. Those of the artifacts
    in `absent` are not looked at: their rules, and all that follow, have keys of no use.
    """
    return (
        *make_fetches(recipe),
        make_rows(recipe, estimate, digests, is_absent="rows" in absent),
        make_base(recipe, estimate, digests, is_absent="base" in absent),
        make_text(recipe, estimate),
        make_dataset(recipe, estimate),
        make_dataset_report(recipe, estimate),
        *make_training_rules(recipe, estimate),
        *make_merge_rules(recipe, estimate),
        make_chat_rule(),
        *make_imatrix_rules(recipe, estimate),
        *make_gguf_rules(recipe, estimate),
        *make_answers_rules(recipe, digests, is_absent="answers" in absent),
        *make_divergence_rules(recipe, estimate),
    )


def list_images(recipe: Recipe) -> tuple[str, ...]:
    """Return the images that the recipe's stages and its server run in, in the order of building:
    the first two share what takes longest."""
    return ("convert", recipe.serve.image, recipe.train.image)


def list_targets(rules: Sequence[Rule], names: Sequence[str]) -> list[str]:
    """Return the artifacts that a command line means: "gguf" stands for every type, "trained" for
    what training is for, and no name at all for the GGUF files, the answers and the divergence."""
    files = [rule.name for rule in rules if rule.name.startswith("gguf-")]
    judged = [rule.name for rule in rules if rule.name.startswith(("answers", "divergence"))]
    if not names:
        return files + judged
    several = {"gguf": files, "trained": [each.name for each in rules if each.name in RESULTS]}
    return [each for name in names for each in several.get(name, [name])]


def list_results(rules: Sequence[Rule]) -> list[str]:
    """Return what a recipe is for and what nobody would want to wait for again: what no name asks
    for, and what was trained with all of its checkpoints."""
    return [TRAINING, *list_targets(rules, ["trained"]), *list_targets(rules, [])]
