"""Weights that cannot be made again, unlearned: from files of records to a folder with other weights.

    model (+ adapter), records to forget, records to keep ─▶ unlearn ─▶ OUT/model or OUT/adapter
                                                                        OUT/unlearned.json

`unlearned.json` says how it was done and what was measured before and after, and nothing of what the
records say. Until the end checkpoints lie in OUT/work, and the same call goes on from them.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosilo.errors import ConfigError, DataError, StoreError
from cosilo.models.base import models
from cosilo.tasks.files import FileRow, cell_text, check_columns, lookup, read_rows
from cosilo.types import Chat, Demonstration, Role, Turn, user

if TYPE_CHECKING:
    from cosilo.models.white_box.lm import TorchModel
    from cosilo.models.white_box.training import TrainingProgress
    from cosilo.models.white_box.unlearning.forgetting import Unlearned

REPORT, WORK = "unlearned.json", "work"
_PARTS = {REPORT, WORK, "model", "adapter"}
_ROLES: Mapping[object, Role] = {"system": "system", "user": "user", "assistant": "assistant"}


@dataclass(frozen=True, kw_only=True)
class WeightsToUnlearn:
    """What is unlearned, and how.

    Attributes:
        model: a name in the catalog, or a path.
        adapter: a folder with the adapter that learned the records.
        untuned: the model before it learned them; needed where there is no adapter to take off.
        forget, keep: files of records: see `records_of`.
        out: the folder for what comes out.
        question, answer: the columns of the files.
        method, options: see `models.white_box.unlearning.methods`.
        training: of `Forgetting`.
    """

    model: str
    forget: Path
    keep: Path
    out: Path
    adapter: Path | None = None
    untuned: str | None = None
    question: str = "question"
    answer: str = "answer"
    method: str = "npo"
    options: Mapping[str, object] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "float32"
    threads: int | None = None
    seed: int = 0


def unlearn_weights(
    asked: WeightsToUnlearn, report: Callable[[TrainingProgress], None] | None = None
) -> Unlearned:
    """Unlearn, and write what came out, if it is better than what came.

    Raises:
        ConfigError: `out` holds something else; no such method, option or model.
        DataError: the files hold no such records, or both hold the same.
        CatalogError: the model is not there, or not safe to load.
        ModelError: the loss is not finite.
        StoreError: `out` holds another training's checkpoint, or cannot be written.
    """
    from cosilo.models.white_box.unlearning.forgetting import Forgetting, unlearn
    from cosilo.models.white_box.unlearning.methods import methods

    methods.create(asked.method, **dict(asked.options))  # before anything is loaded
    how = Forgetting(**asked.training)
    _require_ours(asked.out)
    forget = records_of(asked.forget, asked.question, asked.answer)
    keep = records_of(asked.keep, asked.question, asked.answer)
    _require_apart(asked.forget, forget, keep)
    model = _loaded(asked, asked.model, asked.adapter)
    found = unlearn(
        model,
        forget,
        keep,
        asked.method,
        options=asked.options,
        how=how,
        untuned=None if asked.untuned is None else _loaded(asked, asked.untuned, None),
        seed=asked.seed,
        folder=asked.out / WORK,
        report=report,
    )
    if found.improved and found.best_step:
        changed = model.with_module(found.model.module)
        if asked.adapter is not None:
            changed.save_adapter(asked.out / "adapter")
        else:
            changed.save(asked.out / "model")
        _write(asked, found, model.identity)
    shutil.rmtree(asked.out / WORK, ignore_errors=True)
    return found


def records_of(path: Path, question: str, answer: str) -> list[Demonstration]:
    """The records of a file that `tasks.files.read_rows` reads: a chat and the reply that was learned.

    A row has `messages`, as models are tuned with them (of a system, of users and assistants, the last
    an assistant's, which is the reply), or a question and an answer in columns of these names.

    Raises:
        DataError: a row has neither; the message names its line.
    """
    rows = read_rows(path)
    columned = [row for row in rows if lookup(row.values, "messages") is None]
    if columned:
        check_columns(columned, [question, answer], file=path)
    found = []
    for number, row in enumerate(rows):
        messages = lookup(row.values, "messages")
        chat, reply = (
            _said(row, messages)
            if messages is not None
            else (user(cell_text(row, question)), cell_text(row, answer))
        )
        if not reply.strip() or not chat[-1].content.strip():
            raise DataError(f"{row.where}: a record has a question and the reply that was learned")
        found.append(Demonstration(str(number), chat, reply))
    return found


def _said(row: FileRow, messages: object) -> tuple[Chat, str]:
    turns = []
    for message in messages if isinstance(messages, Sequence) else ():
        role = _ROLES.get(lookup(message, "role"))
        content = lookup(message, "content")
        if role is None or not isinstance(content, str):
            raise DataError(
                f"{row.where}: a message has a role (system, user, assistant) and a text as content"
            )
        turns.append(Turn(role, content))
    if len(turns) < 2 or turns[-1].role != "assistant":
        raise DataError(
            f"{row.where}: messages are two or more, and the last is the assistant's reply"
        )
    return tuple(turns[:-1]), turns[-1].content


def _require_apart(
    file: Path, forget: Sequence[Demonstration], keep: Sequence[Demonstration]
) -> None:
    kept = {(record.chat, record.target) for record in keep}
    both = [i for i, record in enumerate(forget, 1) if (record.chat, record.target) in kept]
    if both:
        more = f" and {len(both) - 1} more" if len(both) > 1 else ""
        raise DataError(
            f"{file}: record {both[0]}{more} is among those to keep, too: what is to be forgotten "
            "must not be"
        )


def _require_ours(out: Path) -> None:
    if out.is_dir() and not _PARTS.issuperset(os.listdir(out)):
        raise ConfigError(f"{out} holds other files: give a folder that is new or empty")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is no folder")


def _loaded(asked: WeightsToUnlearn, name: str, adapter: Path | None) -> TorchModel:
    options: dict[str, Any] = {"precision": asked.precision}
    if asked.threads:
        options["threads"] = asked.threads
    if adapter is not None:
        options["adapter"] = adapter
    where: dict[str, Any] = {"path": Path(name)} if Path(name).exists() else {"model": name}
    return models.create("torch", **where, **options)  # type: ignore[return-value]


def _write(asked: WeightsToUnlearn, found: Unlearned, identity: str) -> None:
    said = {
        "unlearned": "approximately: weights that never saw the records may differ",
        "model": identity,
        "method": found.method,
        "options": dict(asked.options),
        "training": dict(asked.training),
        "seed": asked.seed,
        "records": found.records,
        "kept": found.kept,
        "steps": found.steps,
        "best_step": found.best_step,
        "before": _numbers(asdict(found.before)),
        "after": _numbers(asdict(found.after)),
        "too_much": found.after.too_much,
        "digest_before": found.digest_before,
        "digest": found.digest,
        "seconds": round(found.seconds, 3),
    }
    beside = asked.out / f".{REPORT}"
    try:
        beside.write_text(json.dumps(said, indent=1) + "\n", "utf-8")
        beside.replace(asked.out / REPORT)
    except OSError as error:
        raise StoreError(f"{asked.out / REPORT} cannot be written: {error.strerror}") from None


def _numbers(found: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in found.items()}
