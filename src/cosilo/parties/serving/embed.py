"""Texts become vectors, as the model behind an embeddings endpoint makes them."""

from __future__ import annotations

import numpy as np

from cosilo.boundary.messages import Embed, Embeddings
from cosilo.errors import CapabilityError
from cosilo.models.base import embeds
from cosilo.parties.serving.base import Owner, serves


@serves(Embed)
async def embed(owner: Owner, message: Embed) -> Embeddings:
    if not embeds(owner.model):
        raise CapabilityError(f"{owner.name} has no model that turns texts into vectors")
    found = await owner.model.vectors(message.texts, message.dimensions)
    return Embeddings(
        packed=np.ascontiguousarray(found.rows, "<f4").tobytes(),
        prompt_tokens=found.prompt_tokens,
        attempts=found.attempts,
    )
