"""What a check found: its state, and the one thing to do about it."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check's answer. What is not `ok` says why, and the one fix for this host."""

    check: str
    state: State
    what: str
    why: str = ""
    fix: str = ""


def ok(check: str, *, what: str, why: str = "") -> Finding:
    """Return a finding that asks for nothing."""
    return Finding(check=check, state="ok", what=what, why=why)


def warning(check: str, *, what: str, why: str, fix: str) -> Finding:
    """Return a finding that the build can live with."""
    return Finding(check=check, state="warning", what=what, why=why, fix=fix)


def problem(check: str, *, what: str, why: str, fix: str) -> Finding:
    """Return a finding that the build would fail of."""
    return Finding(check=check, state="problem", what=what, why=why, fix=fix)


def show_size(size_bytes: int) -> str:
    """Return the size to a tenth, for people."""
    if size_bytes < 100_000_000:
        return f"{size_bytes / 1e6:.1f} MB"
    return f"{size_bytes / 1e9:.1f} GB"
