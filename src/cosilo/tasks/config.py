"""From a plan's `[task]` table to a task with its data."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from cosilo.errors import ConfigError, DataError
from cosilo.reasoning import spoken
from cosilo.registry import unknown
from cosilo.tables import read
from cosilo.tasks.base import SPLITS, Example, Grade, Split, Task
from cosilo.tasks.faults import Faults
from cosilo.tasks.files import (
    FileRow,
    absent,
    cell_text,
    check_columns,
    check_text,
    lookup,
    read_rows,
)
from cosilo.tasks.kinds import Form, Given, Kept, Kind, RowItem, kinds, nothing
from cosilo.tasks.secrets import facts_in_cell, facts_in_columns, present
from cosilo.tasks.splits import FROM_TRAIN, WHOLE, divide, same_text, sample, without_leaks

Source = Literal["file", "train", "tune", "validation", "certificate", "test"]
SOURCES: tuple[Source, ...] = get_args(Source)
Missing = Literal["refuse", "skip"]

Detect = Callable[[str], Iterable[tuple[str, str]]]
"""A detector of private values: text → (kind, value) pairs."""


def _tuple(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which column holds what; dotted paths reach into nested values (`preds.gpt-4o`).

    Attributes:
        text: one column, or several that are joined as "name: value" lines.
        target: the accepted answer, or a list of them.
        id: unset: an id is made from the content.
        context: text for the system turn (a glossary, a document).
        secrets: a column of secrets, see `tasks.secrets`.
        secret_columns: other columns whose values are secret where they occur in the text.
        group: what the item belongs to (a database, a domain).
        recorded: model → the column with its recorded answer.
        recorded_seconds: model → the column with the seconds that answer took.
    """

    text: str | tuple[str, ...] = "text"
    target: str = "label"
    id: str = ""
    context: str = ""
    secrets: str = ""
    secret_columns: tuple[str, ...] = ()
    group: str = ""
    recorded: Mapping[str, str] = field(default_factory=dict)
    recorded_seconds: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.texts:
            raise ValueError("text names no column")
        for model in self.recorded_seconds:
            if model not in self.recorded:
                raise ValueError(unknown("recorded model", model, self.recorded))

    @property
    def texts(self) -> tuple[str, ...]:
        return _tuple(self.text)

    def named(self) -> list[str]:
        """Every column the plan names."""
        more = (self.target, self.secrets, *self.secret_columns)
        recorded = (*self.recorded.values(), *self.recorded_seconds.values())
        return [*self.asked(), *(column for column in (*more, *recorded) if column)]

    def asked(self) -> list[str]:
        """The columns that a question is made of."""
        return [*self.texts, *(column for column in (self.id, self.context, self.group) if column)]


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """A task as a plan describes it.

    Attributes:
        kind: the kind of grading, one of `kinds.names()`.
        files: where the rows are: "file" (one file, divided) or one entry per split; several files
            of one split are read one after the other. When "train" comes without some of tune,
            validation and certificate, it is divided into itself and those.
        public: files of questions that are nobody's private ones; answers are not read.
        split: split → share, of the file that is divided; the defaults are in `tasks.splits`.
        instructions: the system turn's text; the kind's own when empty.
        max_items: split → the most items it may have, sampled by class.
        labels: the closed set of answers; that of the training data when empty.
        options: what this kind takes besides.
        seed: moves the division into splits and the sampling.
        missing: what happens to rows without a text or a target: all of them are named and nothing
            starts ("refuse"), or they are left out and counted ("skip").
    """

    kind: str
    files: Mapping[Source, tuple[str, ...]]
    public: tuple[str, ...] = ()
    name: str = "task"
    columns: Columns = Columns()
    split: Mapping[Split, float] = field(default_factory=dict)
    instructions: str = ""
    max_items: Mapping[Split, int] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    seed: int = 0
    missing: Missing = "refuse"


def load_task(config: TaskConfig, base: Path, *, detect: Detect | None = None) -> Task:
    """Read, divide, sample and check the data of `config`.

    Args:
        base: where the plan's relative paths start.
        detect: fills the secrets when the plan declares none; the task says so.

    Raises:
        DataError: the data are not what the plan says; no private text is in the message.
        ConfigError: no such kind, or an option it does not take.
    """
    kind = read(kinds.get(config.kind), config.options, where=f"options of {config.kind!r}")
    notes: list[str] = []
    sources = _sources(config, kind, base, notes)
    _distinct_ids(sources)

    def key(item: RowItem) -> str:
        # Items of different groups are different questions: "How many rows?" of two databases.
        return f"{item.group}\0{same_text(kind.identity(item))}"

    divided = _divide(config, sources, key, notes)
    form = kind.form(
        Given(
            items={split: tuple(items) for split, items in divided.items()},
            instructions=config.instructions,
            labels=config.labels,
            folder=base,
        )
    )
    notes.extend(form.notes)
    columns = config.columns
    gold = bool(columns.secrets or columns.secret_columns) or form.secrets is not nothing
    absent = 0
    splits: dict[Split, tuple[Example, ...]] = {}
    for split, items in divided.items():
        most = config.max_items.get(split, len(items))
        chosen = sample(items, most, key=key, stratum=form.stratum, seed=config.seed)
        made = [_example(item, form, columns, None if gold else detect) for item in chosen]
        splits[split] = tuple(example for example, _ in made)
        absent += sum(missing for _, missing in made)
    public = _public(config, form, base, {key(i) for items in sources.values() for i in items}, key)
    if absent:
        notes.append(f"{absent} secrets of the data do not occur in what the models are given")
    return Task(
        name=config.name,
        kind=config.kind,
        splits=splits,
        public=public,
        grade=lambda example, answer: form.grade(example, spoken(answer)),
        readable=lambda example, answer: form.readable(example, spoken(answer)),
        sampling=form.sampling,
        labels=form.labels,
        instructions=form.instructions,
        gold_secrets=gold,
        notes=tuple(notes),
    )


def located(config: TaskConfig, base: Path) -> dict[str, FileRow]:
    """Every record of the task's files, also such as no split takes, by its id: the row it stands in.

    Raises:
        what `load_task` does.
    """
    kind = read(kinds.get(config.kind), config.options, where=f"options of {config.kind!r}")
    sources = _sources(config, kind, base, [])
    _distinct_ids(sources)
    return {item.id: item.row for items in sources.values() for item in items}


def grader(config: TaskConfig, kept: Kept) -> Grade:
    """How answers to the task are graded, where only `kept` of its data is at hand.

    Raises:
        DataError: the data files are needed.
    """
    kind = read(kinds.get(config.kind), config.options, where=f"options of {config.kind!r}")
    grade = kind.grader(kept)
    return lambda example, answer: grade(example, spoken(answer))


def _sources(
    config: TaskConfig, kind: Kind, base: Path, notes: list[str]
) -> dict[Source, list[RowItem]]:
    """Every item of every source, in the order of the files.

    Raises:
        DataError: rows are wrong, or hold nothing and are not to be skipped; all of them are named.
    """
    columns = config.columns
    if kind.has_targets and not columns.target:
        raise DataError("[task.columns]: target = '' names no column")
    sources: dict[Source, list[RowItem]] = {}
    wrong = Faults()
    for source in (s for s in SOURCES if s in config.files):
        items, skipped = [], 0
        for row in (
            r for name in config.files[source] for r in _rows(base / name, columns.named())
        ):
            empty = _empty(row, columns, targets=kind.has_targets)
            if empty and config.missing == "skip":
                skipped += 1
                continue
            with wrong.noting(row):
                if empty:
                    raise DataError(f"{row.where}: {empty}")
                item = _item(row, columns)
                kind.check(item)
                items.append(item)
        if skipped:
            notes.append(f"{skipped} rows of {source!r} left out: no text or no target in them")
        if not items and not wrong:
            raise DataError(f"{source!r}: no row has a text and a target")
        sources[source] = items
    wrong.refuse('fill them in, or leave such rows out with missing = "skip" in [task]')
    return {source: _with_ids(items, columns.id) for source, items in sources.items()}


def _empty(row: FileRow, columns: Columns, *, targets: bool) -> str:
    """What `row` lacks, in words; empty where it has a text and a target."""
    texts = columns.texts
    if all(absent(lookup(row.values, column)) for column in texts):
        named = ", ".join(map(repr, texts))
        return f"column {named} is empty" if len(texts) == 1 else f"columns {named} are all empty"
    if targets and absent(lookup(row.values, columns.target)):
        return f"the target column is empty ({columns.target!r})"
    return ""


def _rows(path: Path, columns: Sequence[str]) -> Sequence[FileRow]:
    rows = read_rows(path)
    check_columns(rows, columns, file=path)
    return rows


def _public(
    config: TaskConfig, form: Form, base: Path, private: set[str], key: Callable[[RowItem], str]
) -> tuple[Example, ...]:
    """The public questions, each once.

    Raises:
        DataError: some of them are private ones too.
    """
    columns = replace(config.columns, target="", recorded={}, recorded_seconds={})
    rows = [r for name in config.public for r in _rows(base / name, columns.asked())]
    items = _with_ids([_item(row, columns) for row in rows], columns.id)
    keyed = {key(item): item for item in items}
    both = len(keyed.keys() & private)
    if both:
        raise DataError(
            f"'public' holds {both} of the task's own texts among its {len(keyed)}: they would leave "
            "as public ones; take them out of the file"
        )
    return tuple(Example(f"public-{i.id}", form.chat(i), ("",)) for i in keyed.values())


def _item(row: FileRow, columns: Columns) -> RowItem:
    return RowItem(
        id=cell_text(row, columns.id) if columns.id else "",
        text=_text(row, columns.texts),
        target=lookup(row.values, columns.target) if columns.target else "",
        row=row,
        context=cell_text(row, columns.context) if columns.context else "",
        group=cell_text(row, columns.group) if columns.group else "",
        recorded={
            model: (_recorded(row, column), _seconds(row, columns.recorded_seconds.get(model)))
            for model, column in columns.recorded.items()
        },
    )


def _text(row: FileRow, columns: Sequence[str]) -> str:
    if len(columns) == 1:
        text = cell_text(row, columns[0])
        if not text.strip():
            raise DataError(f"{row.where}: column {columns[0]!r} is empty")
        return text
    parts = [(column, cell_text(row, column)) for column in columns]
    if not any(text.strip() for _, text in parts):
        raise DataError(f"{row.where}: columns {', '.join(map(repr, columns))} are all empty")
    text = "\n".join(f"{column}: {text}" for column, text in parts if text.strip())
    check_text(text, where=f"{row.where}: the joined text")
    return text


def _recorded(row: FileRow, column: str) -> str:
    return cell_text(row, column).strip()


def _seconds(row: FileRow, column: str | None) -> float:
    if column is None:
        return 0.0
    cell = lookup(row.values, column)
    if cell is None or cell == "":
        return 0.0
    try:
        seconds = float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise DataError(f"{row.where}: column {column!r} is not a number of seconds")
    return seconds


def _with_ids(items: Sequence[RowItem], column: str) -> list[RowItem]:
    if column:
        first: dict[str, RowItem] = {}
        for item in items:
            if not item.id:
                raise DataError(f"{item.row.where}: column {column!r} is empty")
            if item.id in first:
                raise DataError(
                    f"{item.row.where}: the same id in column {column!r} as "
                    f"{first[item.id].row.where}"
                )
            first[item.id] = item
        return list(items)
    seen: Counter[str] = Counter()
    named = []
    for item in items:
        made = hashlib.sha256(f"{item.group}\0{item.text}\0{item.target!r}".encode()).hexdigest()
        seen[made] += 1
        repeat = f"-{seen[made]}" if seen[made] > 1 else ""
        named.append(replace(item, id=made[:16] + repeat))
    return named


def _distinct_ids(sources: dict[Source, list[RowItem]]) -> None:
    """Files often count their rows from 0 each: then the split's name goes in front."""
    counts = Counter(item.id for items in sources.values() for item in items)
    if any(count > 1 for count in counts.values()):
        for source, items in sources.items():
            sources[source] = [replace(item, id=f"{source}-{item.id}") for item in items]


def _divide(
    config: TaskConfig,
    sources: Mapping[Source, list[RowItem]],
    key: Callable[[RowItem], str],
    notes: list[str],
) -> dict[Split, list[RowItem]]:
    given: dict[Split, list[RowItem]] = {s: sources[s] for s in SPLITS if s in sources}
    kept, dropped = without_leaks(given, key)
    for (split, later), count in sorted(dropped.items()):
        notes.append(f"{count} items of {split!r} left out: their text is also in {later!r}")
    if "file" in sources:
        return {
            **{split: [] for split in SPLITS},
            **divide(sources["file"], key, config.split or WHOLE, seed=config.seed),
        }
    emptied = [split for split in given if not kept[split]]
    if emptied:
        raise DataError(f"no item of {emptied[0]!r} is left: all occur in another split as well")
    missing: tuple[Split, ...] = ("tune", "validation", "certificate")
    absent = [split for split in missing if split not in sources]
    if "train" in sources and absent:
        shares = config.split
        if not shares:
            wanted = {split: FROM_TRAIN[split] for split in ("train", *absent)}
            shares = {split: share / sum(wanted.values()) for split, share in wanted.items()}
        kept |= {"train": [], **divide(kept["train"], key, shares, seed=config.seed)}
    return kept


def _example(
    item: RowItem, form: Form, columns: Columns, detect: Detect | None
) -> tuple[Example, int]:
    chat = form.chat(item)
    given = "\n".join(turn.content for turn in chat)
    facts: list[tuple[str, str]] = []
    if columns.secrets:
        spans = len(columns.texts) == 1
        facts += facts_in_cell(item.row, columns.secrets, item.text, spans=spans)
    absent = present(item.id, facts, given)[1]
    facts += facts_in_columns(item.row, columns.secret_columns)
    facts += form.secrets(item)
    if detect is not None:
        facts += detect(item.text)
    secrets, _ = present(item.id, facts, given)
    example = Example(
        id=item.id,
        chat=chat,
        targets=form.targets(item),
        secrets=secrets,
        group=item.group,
        recorded=item.recorded or {},
    )
    return example, absent


@dataclass(frozen=True, kw_only=True)
class _Table:
    """The keys of a plan's `[task]` table."""

    kind: str
    name: str = "task"
    file: str | tuple[str, ...] = ()
    train: str | tuple[str, ...] = ()
    tune: str | tuple[str, ...] = ()
    validation: str | tuple[str, ...] = ()
    certificate: str | tuple[str, ...] = ()
    test: str | tuple[str, ...] = ()
    public: str | tuple[str, ...] = ()
    columns: Columns = Columns()
    split: Mapping[str, float] = field(default_factory=dict)
    instructions: str = ""
    max_items: int | Mapping[str, int] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    seed: int = 0
    missing: Missing = "refuse"


def parse_task(table: Mapping[str, object], *, where: str = "[task]") -> TaskConfig:
    """A plan's `[task]` table: the keys of `TaskConfig`, with one key per source of rows.

    Raises:
        ConfigError: an unknown key (the nearest is named), a wrong type, or a value that makes no
            sense; the data themselves are not read yet.
    """
    found = read(_Table, table, where=where)
    read(kinds.get(found.kind), found.options, where=f"{where}: options")
    given = {source: _tuple(getattr(found, source)) for source in SOURCES}
    files = {source: paths for source, paths in given.items() if paths}
    if not files:
        raise ConfigError(f"{where}: no data: give 'file', or 'train' and 'test'")
    if "file" in files and len(files) > 1:
        raise ConfigError(f"{where}: 'file' is divided into all splits; do not give others as well")
    if "file" not in files and "test" not in files:
        raise ConfigError(f"{where}: 'test' is missing; a single file is given as 'file'")
    split = {_split(name, f"{where}: split"): share for name, share in found.split.items()}
    _check_split(split, files, f"{where}: split")
    most = found.max_items
    if isinstance(most, int):
        most = dict.fromkeys(SPLITS, most)
    for name, count in most.items():
        if count < 1:
            raise ConfigError(f"{where}: max_items: {name} = {count} is not positive")
    return TaskConfig(
        kind=found.kind,
        name=found.name,
        files=files,
        public=_tuple(found.public) if found.public else (),
        columns=found.columns,
        split=split,
        instructions=found.instructions,
        max_items={_split(name, f"{where}: max_items"): count for name, count in most.items()},
        labels=found.labels,
        options=found.options,
        seed=found.seed,
        missing=found.missing,
    )


def _check_split(
    split: Mapping[Split, float], files: Mapping[Source, tuple[str, ...]], where: str
) -> None:
    if not split:
        return
    for name, share in split.items():
        if not 0 <= share <= 1:
            raise ConfigError(f"{where}: {name} = {share:g} is not a share between 0 and 1")
    if abs(math.fsum(split.values()) - 1) > 1e-6:
        total = math.fsum(split.values())
        raise ConfigError(f"{where}: the shares add up to {total:g}, not to 1")
    if "file" in files:
        return
    if "train" not in files:
        raise ConfigError(f"{where}: there is no 'train' file to divide")
    for name in split:
        if name != "train" and (name == "test" or name in files):
            raise ConfigError(f"{where}: {name!r} has a file of its own, so it takes no share")


def _split(name: str, where: str) -> Split:
    for split in SPLITS:
        if name == split:
            return split
    raise ConfigError(f"{where}: {unknown('split', name, SPLITS)}")
