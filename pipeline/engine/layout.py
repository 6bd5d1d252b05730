"""Where things lie inside every container, whatever starts it."""

from pathlib import PurePosixPath

PREFIX = PurePosixPath("/opt/tristill")
"""The environment: bin/python, the packages, llama/ where the image has it."""

CODE = PurePosixPath("/tristill")
"""Holds `pipeline`, which is mounted and never baked in; it is the PYTHONPATH."""

INPUTS = PurePosixPath("/in")
"""What a program reads, each below its label."""

OUT = PurePosixPath("/out")
"""The one directory that a stage writes."""

JOB = PurePosixPath("/job.json")
SCRATCH = PurePosixPath("/tmp")
