"""Texts are read alone, outside any chat; what is shown of each is the state of its last token."""

from __future__ import annotations

import numpy as np

from cosilo.boundary.messages import Read, States
from cosilo.boundary.wire import states
from cosilo.models.base import Access, require
from cosilo.parties.serving.base import Owner, serves


@serves(Read)
async def read(owner: Owner, message: Read) -> States:
    model = require(owner.model, Access.ACTIVATIONS, by=f"{owner.name}, asked to read texts,")
    texts = [model.plain(text) for text in message.texts]
    layer = model.layers if message.layer is None else message.layer
    last = [state[-1] for state in await model.activations(texts, layer)]
    return States(packed=states.pack(np.stack(last)), prompt_tokens=sum(map(len, texts)))
