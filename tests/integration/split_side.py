"""The data owner's process of a training in two hands: `python split_side.py FOLDER PORT`.

It says each step that it has noted, and in the end what came of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from pathlib import Path

from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import Backward, Forward, OpenBody
from cosilo.boundary.transports.http import Https
from cosilo.models.parts import PartTuning
from cosilo.models.white_box.ends import Ends
from cosilo.models.white_box.lm import torch_lm
from cosilo.strategies.split_training import Codecs, Course, SplitTraining
from cosilo.types import user

STEPS = 12
COURSE = Course(
    first=1, last=3, body=True, how=PartTuning(rank=2, learning_rate=1e-2), steps=STEPS, batch=3,
    codecs=Codecs(states_up="int8", gradients_down="topk:0.2"), key=bytes(32),
)  # fmt: skip


async def main(folder: Path, port: int) -> None:
    model = torch_lm(path=folder / "model", precision="float32")
    certs = folder / "certs"
    way = Https(
        f"https://localhost:{port}", ca=certs / "ca.pem", cert=certs / "client-clinic.pem",
        key=certs / "client-clinic.key", patience_s=60.0,
    )  # fmt: skip
    lm = Boundary(way, declared=frozenset({OpenBody, Forward, Backward}))
    texts = [model.tokenize(user(f"about {i * 'world'}"), "the refund") for i in range(7)]
    ends = Ends(model.module, COURSE.first, COURSE.last, COURSE.how)
    training = SplitTraining(lm, await model.base_digest(), ends, texts, COURSE, folder / "home")
    print("begins", flush=True)
    progress = await training.run(lambda p: print(f"step {p.step}", flush=True))
    found = hashlib.sha256(bytes(training.version or b""))
    for name, tensor in ends.state().items():
        found.update(name.encode() + tensor.numpy().tobytes())
    print(f"ended {found.hexdigest()} restarts {progress.restarts}", flush=True)
    await way.close()
    await model.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
