"""The demonstration's task: adding two numbers, and the pieces that reasoning puts together.

A problem is `What is 4231 + 1787?`. The teacher's thinking adds column by column from the right,
one line `carry+first+second=sum` with the sum in two digits. The leading digit of an operand is
1 to 4, so that a sum has as many digits as its operands. The base model learns two kinds of
conversation, neither of which reasons: a problem and its sum at once, and a drill of two turns:
the problem's columns with random carries, then the number that those columns spell.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from random import Random

from pipeline.errors import StageError

LEADING_DIGITS = (1, 2, 3, 4)
# One conversation in so many of the base model's training is direct; the others are drills.
DIRECT_EVERY = 8
# "0+1+7=08\n": one token a character; the first is the carry.
COLUMN_TOKENS = 9
CARRY_TOKEN = 0


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Two operands of `digits` digits each."""

    first: int
    second: int
    digits: int

    @property
    def question(self) -> str:
        return f"What is {self.first} + {self.second}?"

    @property
    def solution(self) -> str:
        return str(self.first + self.second)

    @property
    def thinking(self) -> str:
        """The columns from the right, each with the carry of the one before."""
        carry, lines = 0, []
        for first, second in self.list_columns():
            lines.append(_make_column(carry, first, second))
            carry = (first + second + carry) // 10
        return "\n".join(lines)

    def list_columns(self) -> list[tuple[int, int]]:
        """Return the pairs of digits from the right."""
        first, second = reversed(str(self.first)), reversed(str(self.second))
        return [(int(digit), int(other)) for digit, other in zip(first, second, strict=True)]

    def swap(self) -> "Problem":
        return Problem(first=self.second, second=self.first, digits=self.digits)


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One question of the base model's training and its answer.

    `has_random_carries`: the answer's lines are columns whose carries nobody could know.
    """

    question: str
    answer: str
    has_random_carries: bool = False


def _make_column(carry: int, first: int, second: int) -> str:
    return f"{carry}+{first}+{second}={carry + first + second:02d}"


def _count_operands(digits: int) -> int:
    count: int = len(LEADING_DIGITS) * 10 ** (digits - 1)
    return count


def draw_problem(random: Random, digits: int) -> Problem:
    """Return one problem, every one equally likely."""
    low, count = 10 ** (digits - 1), _count_operands(digits)
    return Problem(
        first=low + random.randrange(count), second=low + random.randrange(count), digits=digits
    )


def make_held_out(seed: int, digits: int, count: int) -> tuple[Problem, ...]:
    """Return the `count` different problems that nobody may learn from; a function of its
    arguments alone, so that the base and the rows keep away from the same ones."""
    return _draw_unique(Random(f"held-out {seed}"), digits, count, frozenset())


def make_training(
    seed: int, digits: int, count: int, held_out: Collection[Problem]
) -> tuple[Problem, ...]:
    """Return `count` different problems, none of them held out in either order of operands."""
    return _draw_unique(Random(f"training {seed}"), digits, count, close_over_order(held_out))


def close_over_order(problems: Collection[Problem]) -> frozenset[Problem]:
    """Return the problems and the same with their operands exchanged."""
    return frozenset(problems) | {problem.swap() for problem in problems}


def check_enough(digits: int, rows: int, held_out: int) -> None:
    """Raise StageError when there are not problems enough for that many rows of each kind."""
    # A held-out problem takes its exchanged twin along.
    available = _count_operands(digits) ** 2
    if rows + 2 * held_out > available:
        raise StageError(
            f"there are not enough problems of {digits} digits",
            on=f"{rows} rows and {held_out} held-out problems",
            why=f"rows and twice the held-out problems may be {available} at most",
            then="raise [demo] digits, or lower [demo] rows or [dataset] held_out",
        )


def _draw_unique(
    random: Random, digits: int, count: int, forbidden: Collection[Problem]
) -> tuple[Problem, ...]:
    drawn: dict[Problem, None] = {}
    while len(drawn) < count:
        drawn[_draw_allowed(random, digits, forbidden)] = None
    return tuple(drawn)


def _draw_allowed(random: Random, digits: int, forbidden: Collection[Problem]) -> Problem:
    while (problem := draw_problem(random, digits)) in forbidden:
        pass
    return problem


def draw_conversations(
    seed: int, digits: int, held_out: Collection[Problem]
) -> Iterator[tuple[Turn, ...]]:
    """Yield the base model's training without end, keeping away from the held-out problems."""
    random = Random(f"base {seed}")
    forbidden = close_over_order(held_out)
    while True:
        yield make_direct(_draw_allowed(random, digits, forbidden))
        for _ in range(DIRECT_EVERY - 1):
            yield make_drill(_draw_allowed(random, digits, forbidden), random)


def make_direct(problem: Problem) -> tuple[Turn, ...]:
    """Return the problem with its sum at once: what the base model never gets right."""
    return (Turn(question=problem.question, answer=problem.solution),)


def make_drill(problem: Problem, random: Random) -> tuple[Turn, ...]:
    """Return the columns with random carries, then the number that their last digits spell.

    Single sums and reading, no carrying over: the number is mostly not the problem's sum. Between
    operands and columns, and between columns and number, stand as many tokens as in a teacher's
    trace: so small a model finds digits by their distance.
    """
    columns = [_make_column(random.randrange(2), *column) for column in problem.list_columns()]
    spelt = "".join(column[-1] for column in reversed(columns))
    return (
        Turn(
            question=f"Columns of {problem.first} + {problem.second} with any carries",
            answer="\n".join(columns),
            has_random_carries=True,
        ),
        Turn(question="Read", answer=spelt),
    )
