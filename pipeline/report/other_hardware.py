"""A training run that was built again on other hardware: is it the same run?

Sums in another order give other bits, and an optimizer carries them on into every weight; so bytes
are no measure there. The loss on held-out rows is: runs that differ in nothing else stay within
`SHARE` of each other, or within `NATS` where there is hardly any loss left.
"""

import json
from pathlib import Path

from pipeline.sft.checkpoint_list import HARDWARE, read_list

SHARE = 0.02
NATS = 0.01


def describe_other_hardware(sealed: Path, rebuilt: Path) -> str | None:
    """Return what two directories of a run say where their hardware differs and all losses agree.

    None for the same hardware, for what is no training run, and for losses too far apart.
    """
    try:
        before, now = (
            json.loads((each / HARDWARE).read_text(encoding="utf-8"))["devices"]
            for each in (sealed, rebuilt)
        )
    except (OSError, ValueError, KeyError):
        return None
    olds, news = read_list(sealed), read_list(rebuilt)
    if before == now or [each.step for each in olds] != [each.step for each in news]:
        return None
    pairs = list(zip(olds, news, strict=True))
    if any(abs(new.loss - old.loss) > max(SHARE * old.loss, NATS) for old, new in pairs):
        return None
    old, new = pairs[-1]
    return (
        f"made on {', then '.join(before)}; again on {', then '.join(now)}: bytes differ, and the"
        f" held-out loss of every checkpoint agrees ({old.loss:.4f} and {new.loss:.4f} at the last;"
        f" allowed: {SHARE:.0%} or {NATS} nats)"
    )
