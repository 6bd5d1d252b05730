"""Held-out problems with what each model said, side by side, for a page.

Those come first on which the models disagree: they show what a smaller file costs. The rest are
spread evenly over the problems.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from pipeline.artifact.store import Artifact
from pipeline.report.quality import BASE, DISTILLED, read_lines, read_sizes

STYLE = """\
.problem { margin: 0 0 1.2rem; }
.problem h3 { margin: 1rem 0 .3rem; font-size: 1rem; overflow-wrap: anywhere; }
.answers {
  display: grid; gap: .7rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 13rem), 1fr));
}
.answer {
  padding: .7rem; background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
}
.answer b { display: block; font-weight: 600; font-size: .9rem; }
.answer pre {
  margin: .4rem 0 0; max-height: 16rem; overflow: auto; white-space: pre-wrap;
  overflow-wrap: anywhere; font: 13px/1.5 ui-monospace, monospace;
}
.wrong { border-color: var(--second); }
.wrong b span { color: var(--second); }
"""

_SHOWN = 6
_LONGEST = 4000  # characters of an answer


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one model said, all of it."""

    model: str
    text: str
    correct: bool


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One problem with the answers of all models that were asked it."""

    problem: str
    solution: str
    answers: tuple[Answer, ...]

    @property
    def is_disputed(self) -> bool:
        """Whether the distilled models do not agree on it; the base is not one of them."""
        of_distilled = {each.correct for each in self.answers if each.model != BASE}
        return len(of_distilled) > 1


def read_asked(sealed: Mapping[str, Artifact]) -> list[Asked]:
    """Return every problem that was asked, in the order of the problems."""
    said = {BASE: _read(sealed, "answers-checkpoint", "answers-base.jsonl")}
    said[DISTILLED] = _read(sealed, "answers-checkpoint", "answers-distilled.jsonl")
    said |= {each: _read(sealed, "answers", f"answers-{each}.jsonl") for each in read_sizes(sealed)}
    problems: dict[str, dict[str, Any]] = {}
    for lines in said.values():
        problems |= lines
    return [
        Asked(
            problem=str(line["problem"]),
            solution=str(line["solution"]),
            answers=tuple(
                _make_answer(model, lines[row_id])
                for model, lines in said.items()
                if row_id in lines
            ),
        )
        for row_id, line in problems.items()
    ]


def _read(sealed: Mapping[str, Artifact], artifact: str, name: str) -> dict[str, dict[str, Any]]:
    return {str(line["id"]): line for line in read_lines(sealed.get(artifact), name)}


def _make_answer(model: str, line: Mapping[str, Any]) -> Answer:
    return Answer(model=model, text=str(line["text"]), correct=bool(line["correct"]))


def choose(asked: Sequence[Asked], count: int = _SHOWN) -> list[Asked]:
    """Return some of the problems, those that are disputed first."""
    disputed = [each for each in asked if each.is_disputed][:count]
    others = [each for each in asked if not each.is_disputed]
    rest = min(count - len(disputed), len(others))
    return disputed + [others[n * len(others) // rest] for n in range(rest)]


def make_answers(asked: Sequence[Asked]) -> str:
    """Return the problems as HTML; every text is escaped."""
    return "".join(_make_problem(each) for each in asked)


def _make_problem(asked: Asked) -> str:
    answers = "".join(map(_make_box, asked.answers))
    return (
        f'<section class="problem"><h3>{escape(_cut(asked.problem))}</h3>'
        f"<p>Solution: {escape(_cut(asked.solution))}</p>"
        f'<div class="answers">{answers}</div></section>'
    )


def _make_box(answer: Answer) -> str:
    kind, verdict = ("answer", "right") if answer.correct else ("answer wrong", "wrong")
    text = answer.text or "(no answer)"
    return (
        f'<div class="{kind}"><b>{escape(answer.model)}: <span>{verdict}</span></b>'
        f"<pre>{escape(_cut(text))}</pre></div>"
    )


def _cut(text: str) -> str:
    whole = text.encode("utf-8", "replace").decode("utf-8")  # half of a surrogate pair
    if len(whole) <= _LONGEST:
        return whole
    return f"{whole[:_LONGEST]}\n… {len(whole) - _LONGEST:,} characters not shown …"
