"""A model sized to this machine, made from a larger one.

    GGUF ──▶ measure two depths ──▶ choose depth and quantisation ──▶ measure the layers ──▶ drop
         ──▶ refit, heal by the whole model's logits ──▶ GGUF, Hugging Face folder ──▶ measure them

Everything that took long is kept in `OUT/work`, so that an interrupted run goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cosilo.errors import CatalogError, DataError, StoreError
from cosilo.models import catalog
from cosilo.models.base import Tokens
from cosilo.models.fit.decode_speed import Speed, measure
from cosilo.models.fit.sizing import (
    Machine,
    Size,
    SizeLimits,
    adapter_rank,
    bits,
    choose,
    megabytes,
)
from cosilo.models.public_text import public_texts
from cosilo.models.white_box import files as torch_files
from cosilo.models.white_box import gguf as torch_gguf
from cosilo.models.white_box.batch import has_bfloat16
from cosilo.models.white_box.compensation import compensate
from cosilo.models.white_box.depth import importance, plain, without
from cosilo.models.white_box.healing import freeze_ends, teacher_loss
from cosilo.models.white_box.layers import layers_of
from cosilo.models.white_box.lm import TorchModel
from cosilo.models.white_box.tokens import ChatTokens
from cosilo.models.white_box.training import Schedule, TrainingProgress, train
from cosilo.models.white_box.tuning import mean_loss, merged, prepared
from cosilo.registry import Loads

_MEASURED_ON = 2  # sequences that the layers are measured on
_REFITTED_ON = 40  # sequences that the layers which stay are refitted on
_HELD_OUT = 16  # sequences that the losses stated are measured on
_ROUNDS = 5  # measurements of all layers, at most


@dataclass(frozen=True, kw_only=True)
class FitTarget:
    """What to build.

    Attributes:
        source: a GGUF file.
        text: files of public text, `.txt` or `.jsonl` with a key "text"; Python's own manual if none.
        steps: of healing, each on `batch` sequences of `length` tokens.
    """

    source: Path
    limits: SizeLimits
    out: Path
    text: tuple[Path, ...] = ()
    threads: int
    context: int = 2048
    steps: int = 60
    batch: int = 2
    length: int = 128
    learning_rate: float = 1e-4  # the refitted student has much to lose: at 1e-3 it got worse
    seed: int = 0


@dataclass(frozen=True)
class Built:
    """What was built and measured.

    Attributes:
        rank: of the adapter it was healed with; None where all weights of its layers were trained.
        whole, cut, healed: nats per token of held-out text, before quantisation: of the model it was
            made from, of that without the layers, and of what was built.
    """

    size: Size
    of_layers: int
    dropped: tuple[int, ...]
    rank: int | None
    speed: Speed
    whole: float
    cut: float
    healed: float
    gguf: Path
    folder: Path


Say = Callable[[str], None]


def fit(
    wanted: FitTarget, *, say: Say, progress: Callable[[TrainingProgress], None] | None = None
) -> Built:
    """Build it. Raises:
    CatalogError: `source` is no GGUF that can be unpacked.
    ConfigError: the limits cannot be met; the message names the nearest that can.
    DataError: there is too little text.
    StoreError: `out` cannot be written, or holds the work of another `fit`.
    """
    work = _Work(wanted, say)
    whole = layers_of(work.teacher)
    size = work.sized(len(whole))
    dropped = work.dropped(len(whole) - size.layers)
    student, rank = work.healed(dropped, progress)
    gguf, folder = wanted.out / "model.gguf", wanted.out / "model"
    torch_gguf.export(
        student, wanted.source, gguf, quantisation=size.quantisation, name=work.name(size.layers)
    )
    TorchModel.holding(student, work.tokens, name=gguf.stem).save(folder)
    speed = measure(gguf, threads=wanted.threads, context=wanted.context)
    uncut = mean_loss(work.teacher, work.held_out)
    built = Built(
        size,
        len(whole),
        tuple(dropped),
        rank,
        speed,
        whole=uncut,
        cut=mean_loss(without(work.teacher, dropped), work.held_out) if dropped else uncut,
        healed=mean_loss(student, work.held_out) if dropped else uncut,
        gguf=gguf,
        folder=folder,
    )
    work.note("built", asdict(built) | {"gguf": gguf.name, "folder": folder.name})
    return built


class _Work:
    """The steps of a fit; each keeps its result on disk, so that an interrupted fit goes on after
    it.
    """

    def __init__(self, wanted: FitTarget, say: Say) -> None:
        self.wanted = wanted
        self.say = say
        self.place = wanted.out / "work"
        self.digest = catalog.sha256(wanted.source)[:16]
        self.known = self._remembered()
        say(f"opening {wanted.source.name}")
        folder = torch_files.unpack(wanted.source)
        self.tokens = ChatTokens(torch_files.load_words(folder))
        self.teacher = torch_files.load_module(folder, precision="float32", device="cpu")
        self.teacher.requires_grad_(False)
        sequences = plain(self.tokens, public_texts(wanted.text), length=wanted.length)
        order = np.random.default_rng(wanted.seed).permutation(len(sequences))
        mixed = [sequences[i] for i in order]
        least = _MEASURED_ON + _HELD_OUT + wanted.batch
        if len(mixed) < least:
            raise DataError(
                f"the text makes {len(mixed)} sequences of {wanted.length} tokens, and at least "
                f"{least} are needed: give more text, or a smaller --length"
            )
        self.measured_on = mixed[:_MEASURED_ON]
        self.held_out = mixed[_MEASURED_ON : _MEASURED_ON + _HELD_OUT]
        self.healing_on = mixed[_MEASURED_ON + _HELD_OUT :]

    def sized(self, most: int) -> Size:
        """The depth and quantisation, measured (without healing, which changes neither)."""
        limits, least = self.wanted.limits, max(1, most // 4)
        machine = Machine.here()
        self.say(
            f"machine: {machine.cores} cores, {megabytes(machine.memory)} free, "
            f"{'' if has_bfloat16() else 'no '}bfloat16; decoding is timed on "
            f"{self.wanted.threads} threads"
        )
        best = torch_gguf.QUANTISATIONS[0]
        if limits.hold(self.timed(most, best)):
            return Size(most, bits(best), best)
        measured = {
            quantisation: {n: self.timed(n, quantisation) for n in (least, most)}
            for quantisation in torch_gguf.QUANTISATIONS
        }
        while True:
            size = choose(limits, measured, least=least, most=most)
            found = self.timed(size.layers, size.quantisation)
            measured[size.quantisation][size.layers] = found
            if limits.hold(found):
                return size

    def timed(self, layers: int, quantisation: str) -> Speed:
        """What a model of the first `layers` layers takes."""
        label = f"{layers} layers {quantisation}"
        if label not in self.known:
            dropped = range(layers, len(layers_of(self.teacher)))
            path = self.place / f"probe-{layers}-{quantisation}.gguf"
            torch_gguf.export(
                without(self.teacher, dropped),
                self.wanted.source,
                path,
                quantisation=quantisation,
                name="probe",
            )
            found = measure(path, threads=self.wanted.threads, context=self.wanted.context)
            path.unlink()
            self.note(label, asdict(found))
        speed = Speed(**self.known[label])
        self.say(
            f"measured {label}: {speed.ms_per_token:.1f} ms per token, {megabytes(speed.memory)}"
        )
        return speed

    def dropped(self, count: int) -> list[int]:
        """The layers to do without, by what the text costs without them."""
        if not count:
            self.say("all layers stay")
            return []
        label = f"without {count}"
        if label not in self.known:
            self.say(f"measuring which {count} layers are missed the least")
            found = importance(
                self.teacher, self.measured_on, drop=count, at_once=math.ceil(count / _ROUNDS)
            )
            self.note(label, asdict(found))
        found_ = self.known[label]
        whole, cut = found_["losses"][0], found_["losses"][-1]
        self.say(
            f"dropping layers {', '.join(map(str, sorted(found_['order'])))}: the text costs "
            f"{cut:.2f} nats per token without them, {whole:.2f} with them"
        )
        return [int(i) for i in found_["order"]]

    def healed(
        self, dropped: Sequence[int], progress: Callable[[TrainingProgress], None] | None
    ) -> tuple[Any, int | None]:
        """The student, and how wide an adapter it was healed with (None: all its layers)."""
        wanted = self.wanted
        student = without(self.teacher, dropped)
        if not dropped:
            return student, None
        self.say(f"refitting the {len(layers_of(student))} layers that stay")
        compensate(student, self.teacher, dropped, self.healing_on[:_REFITTED_ON])
        if not wanted.steps:
            return student, None
        rank = self.rank(student)
        self.say(
            f"healing: {wanted.steps} steps of {wanted.batch} × {wanted.length} tokens, "
            + ("all layers' weights" if rank is None else f"an adapter of rank {rank}")
        )
        if rank is None:
            trained = student.requires_grad_(True)
            freeze_ends(trained)
        else:
            trained = prepared(student, method="lora", rank=rank, seed=wanted.seed)
        held = self.held_out
        train(
            trained,
            self.healing_on,
            teacher_loss(self.teacher),
            Schedule(
                steps=wanted.steps,
                batch=wanted.batch,
                learning_rate=wanted.learning_rate,
                validate_every=max(1, wanted.steps // 3),
                seed=wanted.seed,
            ),
            validate=lambda module: mean_loss(module, held[: _HELD_OUT // 2]),
            folder=self.place / "healing",
            run=f"{self.digest} {sorted(dropped)} {rank} {_digest(self.healing_on)}",
            report=progress,
            precision="bfloat16" if has_bfloat16() else "float32",
        )
        return merged(trained) if rank is not None else trained, rank

    def rank(self, student: Any) -> int | None:
        wanted = self.wanted
        layers = [p for p in layers_of(student).parameters() if p.ndim == 2]
        vocabulary = student.get_output_embeddings().weight.shape[0]
        tokens = wanted.batch * wanted.length
        hidden = int(student.config.hidden_size)
        kept = tokens * len(layers_of(student)) * hidden * 40  # states that wait for their gradient
        return adapter_rank(
            Machine.here(),
            weights=_count(student.parameters()),  # the teacher is in memory, and not free, already
            trained=_count(layers),
            per_rank=sum(sum(p.shape) for p in layers),
            batch=4 * (4 * tokens * int(vocabulary) + kept),
        )

    def name(self, layers: int) -> str:
        return f"{self.wanted.source.stem}, {layers} layers"

    def note(self, label: str, value: object) -> None:
        self.known[label] = value
        path = self.place / "found.json"
        try:
            self.place.mkdir(parents=True, exist_ok=True)
            beside = path.with_suffix(".new")
            beside.write_text(json.dumps(self.known, indent=1), "utf-8")
            beside.replace(path)
        except OSError as error:
            raise StoreError(f"{str(path)!r} cannot be written: {error.strerror}") from None

    def _remembered(self) -> dict[str, Any]:
        mine = {
            "source": self.digest,
            "threads": self.wanted.threads,
            "context": self.wanted.context,
            "text": [str(p) for p in self.wanted.text],
        }
        try:
            found = json.loads((self.place / "found.json").read_text("utf-8"))
        except FileNotFoundError:
            return {"of": mine}
        except (OSError, ValueError):
            raise StoreError(f"{str(self.place)!r} cannot be read; remove it") from None
        if found.get("of") != mine:
            raise StoreError(
                f"{str(self.place)!r} holds the work of another fit (other model, threads, context "
                "or text); choose another --out, or remove it"
            )
        return dict(found)


def loads(name: str) -> Loads:
    """What `fit` loads to build from the GGUF called `name`."""
    return Loads(() if Path(name).exists() else (name,), (*torch_files.PACKAGES, "xllamacpp"))


def source_of(name: str) -> Path:
    """The GGUF file called `name`: a name of the catalog, or a path.

    Raises:
        CatalogError: it is neither, or no GGUF.
    """
    path = Path(name)
    found = path if path.exists() else catalog.path(name)
    if found.suffix != ".gguf":
        raise CatalogError(f"{name!r} is no GGUF file: only those can be built from")
    return found


def _digest(sequences: Sequence[Tokens]) -> str:
    found = hashlib.sha256()
    for s in sequences:
        found.update(s.ids.tobytes())
    return found.hexdigest()[:16]


def _count(parameters: Any) -> int:
    return sum(int(p.numel()) for p in parameters)
