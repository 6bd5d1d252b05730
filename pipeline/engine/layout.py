"""Where things lie inside every container, whatever starts it."""

from pathlib import PurePosixPath

PREFIX = PurePosixPath("/opt/tristill")
"""The environment: bin/python, the packages, llama/ where the image has it."""

CODE = PurePosixPath("/tristill")
"""Holds `pipeline`, which is mounted and never baked in; it is the PYTHONPATH."""

INPUTS = PurePosixPath("/in")
"""What a program reads, each below its label."""

OUT = PurePosixPath("/out")
"""The directory that a stage writes."""

WORK = PurePosixPath("/work")
"""The work area of a stage that resumes: the other directory that it writes."""

JOB = PurePosixPath("/job.json")
SCRATCH = PurePosixPath("/tmp")

CHAT_PAGE = PurePosixPath("/opt/chat-page")
"""The page of llama.cpp's server, in the image serve alone."""
