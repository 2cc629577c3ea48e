"""A torch model that lends an emulator of itself, and answers with what was tuned through it.

    lend ──▶ healed emulator, measured ── gap large enough? ──▶ Loan
    plug_in ──▶ adapter of one client ──▶ plugged: the model's weights, shared, with that adapter merged

The emulator is made when it is first asked for, once for all clients. With `checkpoints` it and the
adapters lie on disk, and are there again after a restart; without, they live as long as the process.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from cosilo.errors import CapabilityError, DataError, RejectedError, StoreError
from cosilo.models.base import Tokens, models
from cosilo.models.fit.client_adapters import PLUGGED, ClientAdapters
from cosilo.models.lent import Loan, Pack, Tensors, Unpack
from cosilo.models.public_text import public_texts
from cosilo.models.white_box import adapters as torch_adapters
from cosilo.models.white_box import checkpoint
from cosilo.models.white_box import files as torch_files
from cosilo.models.white_box import lm as torch_lms
from cosilo.models.white_box.adapters import Adapter, base_digest
from cosilo.models.white_box.depth import plain, without
from cosilo.models.white_box.emulator import (
    Emulator,
    EmulatorRecipe,
    aligned,
    as_sent,
    config_of,
    emulator_of,
    ends_of,
    require_kind,
    text_digest,
    with_tensors,
)
from cosilo.models.white_box.layers import layers_of
from cosilo.models.white_box.lm import Precision, TorchModel
from cosilo.models.white_box.tuning import without_adapter
from cosilo.registry import Loads


@dataclass(frozen=True, kw_only=True)
class LendingTerms:
    """What a model's owner lends.

    Attributes:
        least_gap: nats per token of public text that an emulator must be worse than the model by, or it
            is not handed out. Below 0 there is no such limit.
        codec, ends_codec: in how many bytes the middle, and the rest, are sent: `boundary.wire.codecs`.
        largest_rank: of an adapter that is taken back.
        adapters: of one client; the one that was longest unused is forgotten when one more comes.
        alignments: how often the emulator is aligned to adapters of one client.
        text: a file of public text, `.txt` or `.jsonl`; Python's own manual if none.
        checkpoints: a folder that the emulator and the adapters are kept in.
    """

    recipe: EmulatorRecipe = field(default_factory=EmulatorRecipe)
    least_gap: float = 0.1
    codec: str = "int8"
    ends_codec: str = "fp16"
    largest_rank: int = 64
    adapters: int = 4
    alignments: int = 2
    text: Path | None = None
    checkpoints: Path | None = None

    def __post_init__(self) -> None:
        for name in ("largest_rank", "adapters"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)!r} is not positive")
        if math.isnan(self.least_gap) or self.alignments < 0:
            raise ValueError(
                f"least_gap = {self.least_gap!r} must be a number, and alignments = "
                f"{self.alignments!r} 0 or more"
            )


class Lender(TorchModel):
    """`TorchModel` whose owner lends it by `terms`; see `models.lent.LendingModel`."""

    def __init__(self, model: TorchModel, terms: LendingTerms) -> None:
        super().__init__(
            lambda: (model.module, model.tokens),
            name=model.name,
            identity=model.identity.removeprefix("torch:"),
            parallel=model.parallel,
        )
        self.terms = terms
        self._made: tuple[Emulator, Loan] | None = None
        self._aligned: OrderedDict[tuple[str, str], Loan] = OrderedDict()
        self._alignments: dict[str, set[str]] = {}
        folder = None if terms.checkpoints is None else terms.checkpoints / "adapters"
        self._adapters = ClientAdapters(self, terms.adapters, folder)
        self._lending = threading.RLock()

    @property
    def largest_rank(self) -> int:
        return self.terms.largest_rank

    @cached_property
    def tunable(self) -> Mapping[str, tuple[int, int]]:
        return ends_of(self.module, self.terms.recipe.ends)

    @cached_property
    def base(self) -> str:
        """A digest of its weights and tokeniser."""
        return base_digest(self)

    async def lend(self, client: str, aligned_to: str, pack: Pack, unpack: Unpack) -> Loan:
        return await asyncio.to_thread(self._lend, client, aligned_to, pack, unpack)

    async def plug_in(
        self, client: str, base: str, rank: int, alpha: float, tensors: Tensors
    ) -> str:
        return await asyncio.to_thread(self._plug_in, client, base, rank, alpha, tensors)

    async def plugged(self, client: str, name: str) -> TorchModel:
        return await self._adapters.plugged(client, name)

    async def adapters_of(self, client: str) -> Mapping[str, str]:
        return await asyncio.to_thread(self._adapters.digests, client)

    async def forget_adapter(self, client: str, name: str) -> None:
        await asyncio.to_thread(self._forget, client, name)

    async def close(self) -> None:
        await self._adapters.close()
        await super().close()

    # ── lending ──────────────────────────────────────────────────────────────

    def _lend(self, client: str, aligned_to: str, pack: Pack, unpack: Unpack) -> Loan:
        with self._lending:
            if self._made is None:
                self._made = self._emulator(pack, unpack)
            made, loan = self._made
            self._require_poor(made)
            if not aligned_to:
                return loan
            if (client, aligned_to) not in self._aligned:
                self._align(client, aligned_to, pack, unpack)
            return self._aligned[client, aligned_to]

    def _emulator(self, pack: Pack, unpack: Unpack) -> tuple[Emulator, Loan]:
        """The emulator, from disk where it is there, and what is handed out of it."""
        require_kind(self.module)
        terms, text = self.terms, self._text()
        ways = _Ways(terms, pack, unpack)
        about = {
            "base": self.base,
            "recipe": asdict(terms.recipe),
            "text": text_digest(text),
            "codecs": [terms.codec, terms.ends_codec],
        }
        known = self._known_emulator(about, ways)
        if known is None:
            folder = None if terms.checkpoints is None else terms.checkpoints / "healing"
            known = emulator_of(
                self.module, terms.recipe, text,
                coded=ways.middle, coded_ends=ways.ends, folder=folder,
            )  # fmt: skip
            if terms.checkpoints is not None:
                facts = {"kept": known.kept, "whole": known.whole, "alone": known.alone}
                kept = dict(known.clean.named_parameters())
                checkpoint.write(self._emulator_file(), kept, {"of": about, **facts})
        return known, self._loan(known, ways.packed("ends") + ways.packed("middle"))

    def _known_emulator(self, about: object, ways: _Ways) -> Emulator | None:
        if self.terms.checkpoints is None or not self._emulator_file().exists():
            return None
        tensors, said = checkpoint.read(self._emulator_file())
        if json.dumps(said["of"]) != json.dumps(about):
            raise StoreError(
                f"{str(self._emulator_file())!r} is an emulator of another model, recipe or text: "
                "choose other checkpoints, or remove it"
            )
        kept = tuple(said["kept"])
        count = len(layers_of(self.module))
        whole = without_adapter(self.module)
        clean = without(whole, [i for i in range(count) if i not in kept]).float()
        clean.requires_grad_(False).eval()
        with_tensors(clean, {name: t.numpy() for name, t in tensors.items()})
        recipe = self.terms.recipe
        known = Emulator(clean, clean, kept, recipe.ends, said["whole"], said["alone"])
        return as_sent(known, recipe, (), ways.middle, ways.ends)

    def _align(self, client: str, name: str, pack: Pack, unpack: Unpack) -> None:
        assert self._made is not None
        adapter, _ = self._adapters.find(client, name)
        so_far = self._alignments.setdefault(client, set())
        if name not in so_far and len(so_far) >= self.terms.alignments:
            raise CapabilityError(
                f"the emulator is aligned to {self.terms.alignments} adapters of a client, and no more"
            )
        ways = _Ways(self.terms, pack, unpack)
        made = aligned(
            self._made[0], self.module, adapter, self.terms.recipe, self._text(),
            coded=ways.middle, coded_ends=ways.ends,
        )  # fmt: skip
        so_far.add(name)
        self._require_poor(made)
        self._aligned[client, name] = self._loan(made, ways.packed("middle"))
        while len(self._aligned) > PLUGGED:
            self._aligned.popitem(last=False)

    def _loan(self, made: Emulator, packed: bytes) -> Loan:
        return Loan(
            config_of(made.module), self.base, made.kept, made.ends, made.whole, made.alone, packed
        )

    def _require_poor(self, made: Emulator) -> None:
        if made.gap < self.terms.least_gap:
            raise CapabilityError(
                f"the emulator alone is {made.gap:.3f} nats per token worse than the model, and its "
                f"owner lends none below {self.terms.least_gap:g}: a smaller depth, or more noise"
            )

    def _text(self) -> list[Tokens]:
        """Public text in sequences, mixed; the order is no secret."""
        file = self.terms.text
        texts = public_texts(() if file is None else (file,))
        found = plain(self.tokens, texts, length=self.terms.recipe.length)
        return [found[i] for i in np.random.default_rng(0).permutation(len(found))]

    def _emulator_file(self) -> Path:
        assert self.terms.checkpoints is not None
        return self.terms.checkpoints / "emulator.safetensors"

    def _forget(self, client: str, name: str) -> None:
        with self._lending:
            self._aligned.pop((client, name), None)
            so_far = self._alignments.get(client, set())
            if name in so_far:  # one less to be aligned to all the same
                so_far.remove(name)
                so_far.add(secrets.token_hex(16))
            self._adapters.drop(client, name)

    # ── what comes back ──────────────────────────────────────────────────────

    def _plug_in(self, client: str, base: str, rank: int, alpha: float, tensors: Tensors) -> str:
        if base != self.base:
            raise RejectedError(
                "the adapter was tuned for another model or tokeniser than this owner has now"
            )
        try:
            adapter = Adapter(rank, alpha, tensors)
            torch_adapters.require_fit(adapter, self.module)
        except DataError as error:
            raise RejectedError(str(error)) from None
        if rank > self.terms.largest_rank:
            raise RejectedError(
                f"the adapter has rank {rank}, and {self.terms.largest_rank} is the largest taken"
            )
        if strange := sorted(adapter.layers.keys() - self.tunable.keys()):
            raise RejectedError(
                f"the adapter changes {strange[0]!r}, which was not lent to be tuned"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            if not all(np.isfinite(adapter.product(layer)).all() for layer in adapter.layers):
                raise RejectedError("what the adapter adds to the weights is no number")
        name = _name_of(client, base, adapter)
        self._adapters.keep(client, name, adapter)
        return name


class _Ways:
    """What an emulator's tensors go through on their way, and the bytes that they were meanwhile."""

    def __init__(self, terms: LendingTerms, pack: Pack, unpack: Unpack) -> None:
        self.middle = partial(self._through, "middle", terms.codec)
        self.ends = partial(self._through, "ends", terms.ends_codec)
        self._pack, self._unpack = pack, unpack
        self._packed: dict[str, bytes] = {}

    def packed(self, part: str) -> bytes:
        return self._packed[part]

    def _through(self, part: str, codec: str, tensors: Tensors) -> Tensors:
        self._packed[part] = self._pack(tensors, codec)
        return self._unpack(self._packed[part])


def _name_of(client: str, base: str, adapter: Adapter) -> str:
    found = hashlib.sha256(json.dumps([client, base, adapter.rank, adapter.alpha]).encode())
    for name, tensor in sorted(adapter.tensors.items()):
        found.update(name.encode())
        found.update(np.ascontiguousarray(tensor, "<f4").tobytes())
    return found.hexdigest()[:32]


def _loads(model: str) -> Loads:
    return Loads((model,) if model else (), torch_files.PACKAGES)


@models.register("lending", loads=_loads)
def lending(
    model: str = "",
    path: Path | None = None,
    precision: Precision = "auto",
    device: str = "auto",
    threads: int | None = None,
    parallel: int = 16,
    ends: int = 2,
    depth: int | None = None,
    noise: float = 0.0,
    steps: int = 60,
    batch: int = 2,
    length: int = 64,
    learning_rate: float = 1e-4,
    seed: int = 0,
    least_gap: float = 0.1,
    codec: str = "int8",
    ends_codec: str = "fp16",
    largest_rank: int = 64,
    adapters: int = 4,
    alignments: int = 2,
    text: Path | None = None,
    checkpoints: Path | None = None,
) -> Lender:
    """A torch model whose owner lends a lossy emulator of it, and plugs in what was tuned through that.

    Args:
        model, path, precision, device, threads, parallel: as for "torch".
        ends, depth, noise, steps, batch, length, learning_rate, seed: how lossy the emulator is, and
            how it is healed; see `EmulatorRecipe`.
        least_gap, codec, ends_codec, largest_rank, adapters, alignments, text, checkpoints: see
            `LendingTerms`.

    Raises:
        CatalogError: the files are not there, or are not safe to load.
        ConfigError: both or neither of `model` and `path`, or an emulator that cannot be.
    """
    recipe = EmulatorRecipe(
        ends=ends,
        depth=depth,
        noise=noise,
        steps=steps,
        batch=batch,
        length=length,
        learning_rate=learning_rate,
        seed=seed,
    )
    terms = LendingTerms(
        recipe=recipe,
        least_gap=least_gap,
        codec=codec,
        ends_codec=ends_codec,
        largest_rank=largest_rank,
        adapters=adapters,
        alignments=alignments,
        text=text,
        checkpoints=checkpoints,
    )
    plain_model = torch_lms.torch_lm(
        model, path, precision=precision, device=device, threads=threads, parallel=parallel
    )
    return Lender(plain_model, terms)
