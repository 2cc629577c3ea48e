"""What the LM's owner finds of a span in a prompt, by how the prompt is split (secure_partial.py).

Each attack has the prompt's clear part, the layers and what crosses by that split, and says as many
tokens as the span has.
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cosilo.attacks.reads import reads, span_in
from cosilo.attacks.states import LinearBack, recover
from cosilo.defences.detection import Span
from cosilo.defences.vault import Vault
from cosilo.engines.llama import Llama
from cosilo.engines.spu.environment import require
from cosilo.models.white_box.lm import TorchModel, torch_lm

DEPTHS = (2, 15)
"""So many first layers are computed on in secret; the states after them are not."""
LIKELY = 100  # of each way to find candidates
DRAWN = 12  # spans that are tried beside a placeholder
LATER = 4  # places behind the span whose reads are used

_SHARES = """
import sys
import numpy as np
from spu import api, libspu
config = libspu.RuntimeConfig(
    protocol=libspu.ABY3, field=libspu.FM64, fxp_fraction_bits=18)
given = np.frombuffer(sys.stdin.buffer.read(), np.uint32).reshape(2, -1)
io = api.Io(3, config)
for ids, many in zip(*given):
    row = np.zeros((1, int(many)), np.float32)
    row[0, ids] = 1
    shares = io.make_shares(row, libspu.VIS_SECRET)
    a, b = (
        np.frombuffer(b"".join(s.share_chunks)[-16 * int(many):], np.int64).reshape(-1, 2)
        for s in shares[:2])
    two, three = a.sum(1), a.sum(1) + b[:, 1]
    print(int(two.argmax()), int(three.argmax()))
"""


class Attacker:
    def __init__(self, model: Llama, words: Any) -> None:
        self.model, self.words = model, words
        self.lm: TorchModel = torch_lm(model="smollm2-135m-instruct", precision="float32")
        self._backs: dict[int, LinearBack] = {}

    def guessed(self, before: Sequence[int], tokens: int) -> list[int]:
        """What the LM would write behind the prefix: no split says more than that is public."""
        found: list[int] = []
        with torch.no_grad():
            said = self.lm.module(torch.tensor([list(before)]), logits_to_keep=1)
            for _ in range(tokens):
                new = said.logits[:, -1:].argmax(-1)
                found.append(int(new))
                said = self.lm.module(new, cache=said.cache)
        return found

    def shared(self, spans: Sequence[Sequence[int]]) -> list[tuple[list[int], list[int]]]:
        """Of each span what the LM owner's two shares of three say it is, and what all three do."""
        flat = [token for span in spans for token in span]
        given = np.array([flat, [len(self.model.table)] * len(flat)], np.uint32)
        said = subprocess.run(
            [require().python, "-c", _SHARES],
            input=given.tobytes(), capture_output=True, check=True,
        ).stdout.split()  # fmt: skip
        rows = iter(zip(map(int, said[::2]), map(int, said[1::2]), strict=True))
        return [
            ([a for a, _ in some], [b for _, b in some])
            for some in ([next(rows) for _ in span] for span in spans)
        ]

    def read(self, ids: Sequence[int], begin: int, end: int) -> tuple[list[int], float]:
        """By what places behind the span read in the first layer, as the ring's 18 bits have it."""
        later = ids[end : end + LATER]
        seen = reads(self.model, ids[: end + LATER], end)
        seen = (np.rint(seen * 2.0**18) / 2.0**18).astype(np.float32)
        found = span_in(self.model, seen, ids[:begin], end - begin, later, beam=8)
        return found.ids, found.off

    async def from_states(
        self, seen: Any, depth: int, ids: Sequence[int], begin: int, end: int, public: Any
    ) -> list[int]:
        """By the states after so many layers, tried one token after the other."""
        if depth not in self._backs:
            states, known = public(depth)
            self._backs[depth] = LinearBack.fit(states, known, self.model.table)
        near = self._backs[depth].nearest(seen, LIKELY)

        async def some(place: int, before: Sequence[int]) -> NDArray[np.int64]:
            if place < begin:
                return np.array([ids[place]])
            _, said = await self.lm.read(None, list(before), places=1, top=LIKELY)
            return np.unique([*near[place], *said.ids[0]])

        found = await recover(self.lm, self.model.table, seen[:end], depth, some)
        return found.ids[begin:end]

    def beside_placeholder(
        self, before: Sequence[int], tokens: int, after: Sequence[int], seed: int
    ) -> list[int]:
        """Of spans that the LM would write, the one behind which the rest is likeliest."""
        drawn = torch.Generator().manual_seed(seed)
        rest = torch.tensor([list(after)]).repeat(DRAWN, 1)
        with torch.no_grad():
            said = self.lm.module(torch.tensor([list(before)]), logits_to_keep=1)
            said.cache.batch_repeat_interleave(DRAWN)
            logs = said.logits[:, -1].log_softmax(-1).repeat(DRAWN, 1)
            spans, told = torch.zeros((DRAWN, 0), dtype=torch.long), torch.zeros(DRAWN)
            for _ in range(tokens):
                new = torch.multinomial(logs.exp(), 1, generator=drawn)
                new[0] = logs[0].argmax()
                spans, told = torch.cat([spans, new], 1), told + logs.gather(1, new)[:, 0]
                said = self.lm.module(new, cache=said.cache)
                logs = said.logits[:, -1].log_softmax(-1)
            later = self.lm.module(rest[:, :-1], cache=said.cache).logits
            logs = torch.cat([logs[:, None], later.log_softmax(-1)], 1)
            told += logs.gather(2, rest[..., None]).sum((1, 2))
        best: list[int] = spans[int(told.argmax())].tolist()
        return best

    def with_placeholder(self, ids: Sequence[int], begin: int, end: int, kind: str) -> list[int]:
        """The prompt with a placeholder where the span stood."""
        value = self.words.decode(list(ids[begin:end]))
        name = value.strip()
        vault = Vault(secrets.token_bytes(32), "")
        found = [Span(0, len(name), kind)]
        vault.issue([name], [found], "")
        hidden = vault.hide(name, found)
        code = self.words(value.replace(name, hidden))["input_ids"]
        return [*ids[:begin], *code, *ids[end:]]

    def next(self, ids: Sequence[int]) -> int:
        with torch.no_grad():
            said = self.lm.module(torch.tensor([list(ids)]), logits_to_keep=1)
        return int(said.logits[0, -1].argmax())
