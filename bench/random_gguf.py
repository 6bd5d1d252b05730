"""A GGUF with random weights, large enough that reading it is what an answer costs.

`python -m bench.random_gguf DIR` writes it, with the interpreter of the image convert.
"""

import sys
from pathlib import Path

from pipeline.engine import process, venv
from pipeline.engine.environment import read_envs_dir
from pipeline.engine.packages import make_host_environment
from pipeline.errors import StageError

_LAYERS = 8
_SIZES = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 64,
}
_TYPE = "Q8_0"


def make_gguf(work: Path) -> Path:
    """Return the file, of 122 million parameters in Q8_0."""
    out, log = work / "random", work / "random.log"
    out.mkdir()
    argv: list[str | Path] = [venv.python_of("convert", read_envs_dir()), "-m", "bench.random_gguf"]
    if process.run([*argv, out], log_path=log, environment=make_host_environment()) != 0:
        raise StageError(
            "the random model cannot be made",
            on=str(out),
            why=process.read_last_lines(log),
            then="run `python -m tests tests/checkpoint`, which makes the environment, then this",
        )
    return out / "model.gguf"


def main(out: str) -> None:
    """Write the checkpoint and the GGUF."""
    from bench.conversion_steps import stream
    from bench.random_checkpoint import write_base

    write_base(Path(out) / "base", _LAYERS, _SIZES)
    stream(str(Path(out) / "base"), "-", out, _TYPE, "2")


if __name__ == "__main__":
    main(sys.argv[1])
