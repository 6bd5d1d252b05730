"""Tristill distils a teacher's reasoning into an open model and delivers the quantised GGUF."""

__version__ = "0.1.0"
