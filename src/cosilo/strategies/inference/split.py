"""The first layers are at home; what they make of the text goes on, with noise, at the LM's owner.

    text ──▶ first layers ──▶ cut, noise ──▶ the LM's other layers ──▶ denoiser ──▶ head ──▶ next token
             at home                          its owner                          at home

Mai et al., "Split-and-Denoise: Protect Large Language Model Inference with Local Differential
Privacy" (arXiv 2310.09130), for a model that writes. **How much it hides is measured, and it is
little**: who has the first layers' weights recovers nearly every token at noise that leaves a text of
use (`attacks.states`, docs/results.md). What hides the tokens is that the LM's owner does not know
the layers at home; where they are a public model's, nothing does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cosilo.boundary.messages import Forward
from cosilo.errors import ConfigError
from cosilo.models.base import Access, Array
from cosilo.privacy.secret_key import secret_key
from cosilo.strategies.base import Expected, Forecast, Needs, Session, Strategy, strategies
from cosilo.strategies.denoiser import Denoiser
from cosilo.strategies.guide import Guide
from cosilo.strategies.split_thread import (
    HomeModel,
    SplitPoint,
    SplitThread,
    home_model,
    require_plain,
    same_begin,
    usual_length,
)
from cosilo.types import Answer, Chat, Delta, assemble


@strategies.register("split")
@dataclass(frozen=True, kw_only=True)
class Split:
    """The large model writes the answer, and reads no token: states after the first layers, with noise.
    The small model must be the large one's own first layers (of which it uses `layers`), its tokeniser
    and its head: the same model file, or one that was cut from it.

    Attributes:
        layers: how many are computed at home; 0 for the embedding alone.
        noise: how long the noise on each state is on average, as a multiple of `clip`; 0 for none.
        clip: states are cut to this length; unset, to the median length in a text of nobody's.
        denoise: learn on so many public texts to take out what the noise did; each is sent twice, once
            without noise. 0 for no denoiser.
        key_file: the key that noise is derived under; made when it is not there.
        denoiser: what was learned before; then `prepare` learns nothing.
    """

    guide: ClassVar[Guide] = Guide(
        crosses="a state with noise for each token of question and answer; states come back",
        choose=(
            "the first layers are secret, and a back end shows states; with public layers it hides "
            "next to nothing"
        ),
    )

    layers: int = 4
    noise: float = 1.0
    clip: float | None = None
    denoise: int = 0
    key_file: Path = Path(".cosilo/split.key")
    denoiser: Denoiser | None = None

    needs: ClassVar[Needs] = Needs(small=Access.ACTIVATIONS, sends=frozenset({Forward}))

    def __post_init__(self) -> None:
        if self.layers < 0:
            raise ValueError(f"layers = {self.layers!r} is negative")
        if not 0 <= self.noise < 1e6:
            raise ValueError(f"noise = {self.noise!r} is not from 0 to below a million")
        if self.clip is not None and not 0 < self.clip < 1e9:
            raise ValueError(f"clip = {self.clip!r} is not positive and finite")
        if self.denoise < 0:
            raise ValueError(f"denoise = {self.denoise!r} is negative")

    def forecast(self) -> Forecast:
        learning = Expected("public", Forward, items=self.denoise, each=2, writes=())
        answers = Expected(
            "answers", Forward, per="answer", reads=("question", "answer"), writes=()
        )
        return (learning, answers) if self.denoise else (answers,)

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        """Finds how long states are, and learns the denoiser.

        Raises:
            CapabilityError: the small model cannot be cut.
            ConfigError: it has not so many layers, or there are too few public texts.
        """
        model = home_model(session.owner.model, self.layers, by="split")
        found = replace(self, clip=self.clip or await usual_length(model, self.layers))
        if not self.denoise or self.denoiser is not None:
            return found, session
        texts = [example.chat for example in session.owner.public[: self.denoise]]
        if len(texts) < self.denoise:
            raise ConfigError(
                f"split learns its denoiser on denoise = {self.denoise} public texts, and the task has "
                f"{len(texts)}: name more in [task.public], or set denoise = 0"
            )
        return replace(found, denoiser=await found._learned(session, model, texts)), session

    async def answer(self, session: Session, chat: Chat) -> Answer:
        return Answer(assemble([d async for d in await self._written(session, chat)]), by="large")

    async def stream(self, session: Session, chat: Chat) -> AsyncIterator[Delta | Answer]:
        pieces = []
        async for delta in await self._written(session, chat):
            pieces.append(delta)
            yield delta
        yield Answer(assemble(pieces), by="large")

    async def _written(self, session: Session, chat: Chat) -> AsyncIterator[Delta]:
        require_plain(session.sampling, by="split")
        model = home_model(session.owner.model, self.layers, by="split")
        prompt = list(model.prompt(chat))
        thread = SplitThread(
            session.lm, model, await self._cut(model), open=same_begin(model, prompt)
        )
        return thread.reply(prompt, session.sampling)

    async def _cut(self, model: HomeModel) -> SplitPoint:
        clip = self.clip or await usual_length(model, self.layers)
        key = secret_key(self.key_file) if self.noise else b""
        return SplitPoint(self.layers, self.noise, clip, key, self.denoiser)

    async def _learned(
        self, session: Session, model: HomeModel, texts: Sequence[Chat]
    ) -> Denoiser | None:
        """The denoiser, from public texts that are sent with noise and without."""
        if not self.noise:
            return None
        cut = await self._cut(model)
        channel = session.lm.bind("public")
        rows: list[tuple[Array, ...]] = []
        for chat in texts:
            prompt = list(model.prompt(chat))
            open = same_begin(model, prompt)
            clean = SplitThread(channel, model, replace(cut, noise=0.0))
            wanted = await clean.go_on(prompt)
            seen: list[tuple[Array, ...]] = []

            def note(noisy: Array, given: Array, noise: Array, seen: Any = seen) -> Array:
                seen.append((noisy, given, noise))
                return noisy

            await SplitThread(channel, model, replace(cut, denoiser=note), open=open).go_on(prompt)
            rows.append(tuple(part[open:] for part in (*seen[0], wanted)))
        noisy, given, noise, wanted = (np.concatenate(part) for part in zip(*rows, strict=True))
        return Denoiser.fit(noisy, given, noise, wanted)
