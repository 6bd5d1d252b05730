"""What the doctor found: a line per check, and below it why and the fix."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from pipeline.doctor.finding import Finding, State
from pipeline.report.table import align

_COLOURS: dict[State, str] = {"ok": "32", "warning": "33", "problem": "31"}


def make_report(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the document of `--json`."""
    return {
        "ready": all(finding.state != "problem" for finding in findings),
        "findings": [
            {
                "check": finding.check,
                "state": finding.state,
                "what": finding.what,
                "why": finding.why,
                "fix": finding.fix,
            }
            for finding in findings
        ],
    }


def format_findings(findings: Sequence[Finding], *, colour: bool) -> str:
    """Return the findings as aligned lines that begin with the state."""
    rows: list[tuple[State | Literal[""], str, str]] = []
    for finding in findings:
        rows.append((finding.state, finding.check, finding.what))
        if finding.why:
            rows.append(("", "", f"why: {finding.why}"))
        if finding.fix:
            rows.append(("", "", f"fix: {finding.fix}"))
    counts = Counter(finding.state for finding in findings)
    ready = "not ready" if counts["problem"] else "ready"
    summary = ", ".join(f"{counts[state]} {state}" for state in _COLOURS if counts[state])
    lines = align(rows)
    if colour:
        lines = [_paint(line, row[0]) for line, row in zip(lines, rows, strict=True)]
    return "\n".join(lines) + f"\n\n{ready}: {summary}\n"


def _paint(line: str, state: State | Literal[""]) -> str:
    """Return the line with its state in its colour."""
    if not state:
        return line
    return f"\033[{_COLOURS[state]}m{state}\033[0m{line[len(state) :]}"
