"""How wide is SmolLM2 inside? The attack on its real logits, packed as they cross, for several k.

Reads what `codec.py` has kept. "all": the whole distribution, of which 4,096 tokens are looked at.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from cosilo.attacks.output_layer import output_space
from cosilo.boundary.logits import TopK, pack, top_k, unpack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/distil/logits"))
    options = parser.parse_args()
    files = sorted(options.folder.glob("*.npy"))
    for k in (64, 1024, 4096, None):
        tops: list[TopK] = []
        for path in files:
            logits = np.load(path)
            exact = top_k(logits[:, :4096].copy(), 4096) if k is None else top_k(logits, k)
            tops.append(unpack(pack(exact)))
        space = output_space(tops)
        found = (
            "no width stands out" if space is None else f"{space.width}, {space.gap:.1f} × noise"
        )
        print(f"k = {k or 'all'}: {found}; n = {sum(map(len, tops))} places", flush=True)


if __name__ == "__main__":
    main()
