"""What may be done with private tables: a closed set of verbs, as data.

    scan ─▶ join … ─▶ filter ─▶ group ─▶ compute ─▶ combine ─▶ sort ─▶ limit

A plan is these verbs in this order; a plan can be scanned like a table. Nothing else can be said in
it: no write, no pragma, no other database, no recursion, no function outside `FUNCTIONS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

AGGREGATES = frozenset({"count", "sum", "avg", "min", "max", "total", "group_concat"})
FUNCTIONS = AGGREGATES | {
    "abs", "round", "ceil", "ceiling", "floor", "sign", "sqrt", "power", "pow", "mod", "ln",
    "log", "log10", "exp", "lower", "upper", "length", "substr", "substring", "trim", "ltrim",
    "rtrim", "replace", "instr", "coalesce", "ifnull", "nullif", "iif", "date", "time",
    "datetime", "julianday", "unixepoch", "strftime", "row_number", "rank", "dense_rank",
    "percent_rank", "cume_dist", "ntile", "lag", "lead", "first_value", "last_value", "nth_value",
}  # fmt: skip

TermKind = Literal[
    "column", "star", "text", "number", "word", "call", "every", "different", "sign", "prefix",
    "missing", "between", "among", "exists", "like", "case", "cast", "nested", "window", "ordered",
]  # fmt: skip


@dataclass(frozen=True)
class Term:
    """A value that is computed for a row or a group.

    Attributes:
        kind: what it is; `text` and `parts` are as `_written` reads them.
    """

    kind: TermKind
    text: str = ""
    parts: tuple[Term | TablePlan, ...] = ()


@dataclass(frozen=True)
class Scan:
    """The rows of a table, or of a plan, under a name."""

    table: str | TablePlan
    name: str = ""


@dataclass(frozen=True)
class Join:
    """Rows beside those of another scan, where `on` holds, or the columns `using` are equal."""

    how: Literal["JOIN", "LEFT JOIN", "CROSS JOIN"]
    scan: Scan
    on: Term | None = None
    using: tuple[str, ...] = ()


@dataclass(frozen=True)
class Filter:
    """The rows for which `condition` holds."""

    condition: Term


@dataclass(frozen=True)
class Group:
    """One row for each value of `by`, where `having` holds."""

    by: tuple[Term, ...]
    having: Term | None = None


@dataclass(frozen=True)
class Compute:
    """The columns of the result, each with its name or ""; each row once where `distinct`."""

    columns: tuple[tuple[Term, str], ...]
    distinct: bool = False


@dataclass(frozen=True)
class Combine:
    """Rows together with those of another plan."""

    how: Literal["UNION", "UNION ALL", "EXCEPT", "INTERSECT"]
    plan: TablePlan


@dataclass(frozen=True)
class Sort:
    """Rows in the order of these terms."""

    by: tuple[Term, ...]


@dataclass(frozen=True)
class RowLimit:
    """So many rows, after so many that are skipped."""

    rows: Term
    skipped: Term | None = None


Verb = Scan | Join | Filter | Group | Compute | Combine | Sort | RowLimit


@dataclass(frozen=True)
class TablePlan:
    """Verbs in their order, after the plans that they scan by name."""

    verbs: tuple[Verb, ...]
    named: tuple[tuple[str, TablePlan], ...] = ()

    def sql(self) -> str:
        """The plan as one SELECT statement of SQLite's."""
        start = ""
        if self.named:
            start = f"WITH {', '.join(f'{n} AS ({p.sql()})' for n, p in self.named)} "
        compute = next(v for v in self.verbs if isinstance(v, Compute))
        columns = ", ".join(
            f"{_written(term)} AS {name}" if name else _written(term)
            for term, name in compute.columns
        )
        rest = "".join(f" {_of_verb(v)}" for v in self.verbs if not isinstance(v, Compute))
        return f"{start}SELECT {'DISTINCT ' if compute.distinct else ''}{columns}{rest}"

    def mapped(self, change: Callable[[Term], Term]) -> TablePlan:
        """The plan with `change` done to each of its terms, innermost first."""

        def plan(old: TablePlan) -> TablePlan:
            named = tuple((name, plan(p)) for name, p in old.named)
            return TablePlan(tuple(map(verb, old.verbs)), named)

        def term(old: Term) -> Term:
            parts = tuple(plan(p) if isinstance(p, TablePlan) else term(p) for p in old.parts)
            return change(replace(old, parts=parts))

        def maybe(old: Term | None) -> Term | None:
            return None if old is None else term(old)

        def scan(old: Scan) -> Scan:
            return old if isinstance(old.table, str) else replace(old, table=plan(old.table))

        def verb(old: Verb) -> Verb:
            match old:
                case Scan():
                    return scan(old)
                case Join():
                    return replace(old, scan=scan(old.scan), on=maybe(old.on))
                case Filter():
                    return Filter(term(old.condition))
                case Group():
                    return Group(tuple(map(term, old.by)), maybe(old.having))
                case Compute():
                    return replace(old, columns=tuple((term(t), name) for t, name in old.columns))
                case Combine():
                    return replace(old, plan=plan(old.plan))
                case Sort():
                    return Sort(tuple(map(term, old.by)))
                case RowLimit():
                    return RowLimit(term(old.rows), maybe(old.skipped))

        return plan(self)

    def scans(self) -> Counter[str]:
        """The tables that the plan scans, in small letters, and how often: a plan that is scanned
        twice counts twice."""
        return self._scans({})

    def tables(self) -> frozenset[str]:
        """The tables that the plan scans, in small letters."""
        return frozenset(self.scans())

    def _scans(self, known: Mapping[str, Counter[str]]) -> Counter[str]:
        known = dict(known)
        for name, plan in self.named:
            known[_plainly(name)] = plan._scans(known)
        inner: list[TablePlan] = []

        def noted(term: Term) -> None:
            inner.extend(part for part in term.parts if isinstance(part, TablePlan))

        total: Counter[str] = Counter()
        for verb in self.verbs:
            for scan in _scans_of(verb):
                if isinstance(scan.table, TablePlan):
                    inner.append(scan.table)
                else:
                    name = _plainly(scan.table)
                    total += known.get(name, Counter({name: 1}))
            if isinstance(verb, Combine):
                inner.append(verb.plan)
            for term in _terms_of(verb):
                _each(term, noted)
        for plan in inner:
            total += plan._scans(known)
        return total


def _plainly(name: str) -> str:
    return name.strip('"').replace('""', '"').casefold()


def _scans_of(verb: Verb) -> tuple[Scan, ...]:
    return (verb,) if isinstance(verb, Scan) else (verb.scan,) if isinstance(verb, Join) else ()


def _terms_of(verb: Verb) -> tuple[Term, ...]:
    match verb:
        case Join():
            return (verb.on,) if verb.on else ()
        case Filter():
            return (verb.condition,)
        case Group():
            return (*verb.by, verb.having) if verb.having else verb.by
        case Compute():
            return tuple(term for term, _ in verb.columns)
        case Sort():
            return verb.by
        case RowLimit():
            return (verb.rows, verb.skipped) if verb.skipped else (verb.rows,)
        case _:
            return ()


def _each(term: Term, do: Callable[[Term], object]) -> None:
    """`do` with `term` and the terms in it; plans in it are left to `do`."""
    do(term)
    for part in term.parts:
        if isinstance(part, Term):
            _each(part, do)


def _of_verb(verb: Verb) -> str:
    match verb:
        case Scan():
            return f"FROM {_of_scan(verb)}"
        case Join():
            using = f" USING ({', '.join(verb.using)})" if verb.using else ""
            return f"{verb.how} {_of_scan(verb.scan)}{using}" + (
                f" ON {_written(verb.on)}" if verb.on else ""
            )
        case Filter():
            return f"WHERE {_written(verb.condition)}"
        case Group():
            by = f"GROUP BY {_list(verb.by)}" if verb.by else ""
            having = f"HAVING {_written(verb.having)}" if verb.having else ""
            return f"{by} {having}".strip()
        case Combine():
            return f"{verb.how} {verb.plan.sql()}"
        case Sort():
            return f"ORDER BY {_list(verb.by)}"
        case RowLimit():
            skipped = f" OFFSET {_written(verb.skipped)}" if verb.skipped else ""
            return f"LIMIT {_written(verb.rows)}{skipped}"
        case Compute():
            raise AssertionError("written before the others")


def _of_scan(scan: Scan) -> str:
    table = scan.table if isinstance(scan.table, str) else f"({scan.table.sql()})"
    return f"{table} AS {scan.name}" if scan.name else table


def _list(terms: tuple[Term | TablePlan, ...]) -> str:
    return ", ".join(map(_written, terms))


def _written(term: Term | TablePlan) -> str:
    if isinstance(term, TablePlan):
        return term.sql()
    parts = term.parts
    match term.kind:
        case "column" | "star" | "number" | "word":
            return term.text
        case "text":
            return "'" + term.text.replace("'", "''") + "'"
        case "call":
            return f"{term.text}({_list(parts)})"
        case "every":
            return f"{term.text}(*)"
        case "different":
            return f"{term.text}(DISTINCT {_list(parts)})"
        case "sign":
            return f"({_written(parts[0])} {term.text} {_written(parts[1])})"
        case "prefix":
            return f"({term.text} {_written(parts[0])})"
        case "missing":
            return f"({_written(parts[0])} {term.text} NULL)"
        case "between":
            return (
                f"({_written(parts[0])} {term.text} {_written(parts[1])} AND {_written(parts[2])})"
            )
        case "among":
            return f"({_written(parts[0])} {term.text} ({_list(parts[1:])}))"
        case "exists" | "nested":
            return f"{term.text}({_written(parts[0])})"
        case "like":
            escape = f" ESCAPE {_written(parts[2])}" if len(parts) > 2 else ""
            return f"({_written(parts[0])} {term.text} {_written(parts[1])}{escape})"
        case "case":
            return _case(term)
        case "cast":
            return f"CAST({_written(parts[0])} AS {term.text})"
        case "window":  # `text` says how many parts are what it is divided by; the rest orders it
            by, frame = term.text.split(" ", 1)
            count = int(by)
            inside = [
                f"PARTITION BY {_list(parts[1 : 1 + count])}" if count else "",
                f"ORDER BY {_list(parts[1 + count :])}" if parts[1 + count :] else "",
                frame,
            ]
            return f"{_written(parts[0])} OVER ({' '.join(filter(None, inside))})"
        case "ordered":
            return f"{_written(parts[0])} {term.text}"


def _case(term: Term) -> str:
    """`text` holds "of" where the first part is compared with each, "else" where the last is the
    rest."""
    parts = [_written(part) for part in term.parts]
    head = f" {parts.pop(0)}" if "of" in term.text else ""
    tail = f" ELSE {parts.pop()}" if "else" in term.text else ""
    when = "".join(f" WHEN {a} THEN {b}" for a, b in zip(parts[::2], parts[1::2], strict=True))
    return f"CASE{head}{when}{tail} END"
