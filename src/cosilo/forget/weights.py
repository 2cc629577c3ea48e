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
from cosilo.forget.verifying import NumberWithInterval, Verification, verified
from cosilo.models.base import models
from cosilo.tasks.files import FileRow, cell_text, check_columns, lookup, read_rows
from cosilo.types import Chat, Demonstration, Role, Turn, user

if TYPE_CHECKING:
    from cosilo.models.white_box.lm import TorchModel
    from cosilo.models.white_box.training import TrainingProgress
    from cosilo.models.white_box.unlearning.forgetting import Unlearned

REPORT, WORK = "unlearned.json", "work"
_PARTS = {REPORT, WORK, "model", "adapter"}
_BEGUN = (f".{REPORT}", ".model.", ".adapter.")  # what names begin with while something is written
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
        retrained: weights trained without the records, for verifying: an adapter's folder where
            `adapter` is given, else a model.
        never: records that no weights learned, for verifying.
        verify: whether weights that came out are verified; see `forget.verifying`.
        method, options: see `models.white_box.unlearning.methods`.
        training: of `Forgetting`.
    """

    model: str
    forget: Path
    keep: Path
    out: Path
    adapter: Path | None = None
    untuned: str | None = None
    retrained: str | None = None
    never: Path | None = None
    verify: bool = False
    question: str = "question"
    answer: str = "answer"
    method: str = "bad_teacher"
    options: Mapping[str, object] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "float32"
    threads: int | None = None
    seed: int = 0


def unlearn_weights(
    asked: WeightsToUnlearn,
    report: Callable[[TrainingProgress], None] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Unlearned, Verification | None]:
    """Unlearn, write what came out, if it is better than what came, and verify where that is asked for.

    Args:
        say: told which weights are verified.

    Raises:
        ConfigError: `out` holds something else; no such method, option or model; models whose tokens
            are other text.
        DataError: the files hold no such records, or both hold the same.
        CatalogError: the model is not there, or not safe to load.
        ModelError: the loss is not finite.
        StoreError: `out` holds another training's checkpoint, or cannot be written.
    """
    from cosilo.models.white_box.unlearning.forgetting import (
        Forgetting,
        require_same_tokens,
        unlearn,
    )
    from cosilo.models.white_box.unlearning.methods import methods

    methods.create(asked.method, **dict(asked.options))  # before anything is loaded
    how = Forgetting(**asked.training)
    _require_ours(asked.out, "model" if asked.adapter is not None else "adapter")
    forget = records_of(asked.forget, asked.question, asked.answer)
    keep = records_of(asked.keep, asked.question, asked.answer)
    _require_apart(asked.forget, forget, keep, "to keep")
    never = [] if asked.never is None else records_of(asked.never, asked.question, asked.answer)
    if asked.never is not None:
        _require_apart(asked.never, never, [*forget, *keep], "that were learned")
    if asked.verify and len(forget) < 2:
        raise DataError(f"{asked.forget}: verifying takes two records to forget or more")
    model = _loaded(asked, asked.model, asked.adapter)
    retrained = None
    if asked.verify and asked.retrained is not None:
        retrained = (
            _loaded(asked, asked.retrained, None)
            if asked.adapter is None
            else _loaded(asked, asked.model, Path(asked.retrained))
        )
        require_same_tokens(model, retrained, [*forget, *keep])
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
    seen = None
    if found.improved and found.best_step:
        changed = model.with_module(found.model.module)
        if asked.adapter is not None:
            changed.save_adapter(asked.out / "adapter")
        else:
            changed.save(asked.out / "model")
        _write(asked, found, None, model.identity)
        if asked.verify:  # what fails here costs no training: the same command goes on
            seen = verified(
                model, changed, forget, keep, retrained=retrained, never=never, seed=asked.seed,
                say=say,
            )  # fmt: skip
            _write(asked, found, seen, model.identity)
    shutil.rmtree(asked.out / WORK, ignore_errors=True)
    return found, seen


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
        named, content = lookup(message, "role"), lookup(message, "content")
        role = _ROLES.get(named) if isinstance(named, str) else None
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
    file: Path, records: Sequence[Demonstration], others: Sequence[Demonstration], what: str
) -> None:
    known = {(record.chat, record.target) for record in others}
    both = [i for i, record in enumerate(records, 1) if (record.chat, record.target) in known]
    if both:
        more = f" and {len(both) - 1} more" if len(both) > 1 else ""
        raise DataError(
            f"{file}: record {both[0]}{more} is among those {what}, too: none of this file may be"
        )


def _require_ours(out: Path, other: str) -> None:
    """Refuse a folder that holds other files, or a result of the kind `other`: beside this call's own
    nobody could tell which is to be used. What a call that was killed had begun to write is deleted."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is no folder")
    there = set(os.listdir(out)) if out.exists() else set()
    written = {name for name in there if name.startswith(_BEGUN)}
    if not _PARTS.issuperset(there - written):
        raise ConfigError(f"{out} holds other files: give a folder that is new or empty")
    if other in there:
        raise ConfigError(
            f"{out / other} is of an earlier call, of another kind than this one's: give a folder that "
            "is new or empty"
        )
    for name in written:
        if (out / name).is_dir():
            shutil.rmtree(out / name)
        else:
            (out / name).unlink()


def _loaded(asked: WeightsToUnlearn, name: str, adapter: Path | None) -> TorchModel:
    options: dict[str, Any] = {"precision": asked.precision}
    if asked.threads is not None:
        options["threads"] = asked.threads
    if adapter is not None:
        options["adapter"] = adapter
    where: dict[str, Any] = {"path": Path(name)} if Path(name).exists() else {"model": name}
    return models.create("torch", **where, **options)  # type: ignore[return-value]


def _write(
    asked: WeightsToUnlearn, found: Unlearned, seen: Verification | None, identity: str
) -> None:
    said: dict[str, object] = {
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
    if seen is not None:
        said["verified"] = {
            "records": seen.records,
            "measures": _intervals(seen.measures),
            "under attack": _intervals(seen.attacks),
            **_numbers({"forget quality": seen.quality, "privacy leak": seen.leak}),
        }
    beside = asked.out / f".{REPORT}"
    try:
        beside.write_text(json.dumps(said, indent=1) + "\n", "utf-8")
        beside.replace(asked.out / REPORT)
    except OSError as error:
        raise StoreError(f"{asked.out / REPORT} cannot be written: {error.strerror}") from None


def _intervals(
    found: Mapping[str, Mapping[str, NumberWithInterval]],
) -> dict[str, dict[str, object]]:
    return {
        name: {what: _numbers(share._asdict()) for what, share in each.items()}
        for name, each in found.items()
    }


def _numbers(found: Mapping[str, float | None]) -> dict[str, float | None]:
    return {
        name: value if value is not None and math.isfinite(value) else None
        for name, value in found.items()
    }
