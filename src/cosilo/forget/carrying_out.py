"""A request carried out, step by step; killed at any moment, the same command goes on.

Each step does its work before it is noted as done, and does no harm when it is done twice. Nothing is
said to be erased while a step stands.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cosilo.benchmark.lock import take_lock
from cosilo.benchmark.noting import FORGOTTEN, Withdrawal, forgotten_of
from cosilo.errors import RunBusyError, StoreError, of_point
from cosilo.forget import erasure
from cosilo.forget.data_rows import leave_out, pinned
from cosilo.forget.elsewhere import ask_party, keep_names, peer_of, shred_unasked
from cosilo.forget.files import overwrite, replace_file
from cosilo.forget.home import DataHome, DataRun, RecordRows, ids_in, resolved
from cosilo.forget.moved import NOT_THERE, follow, note_request
from cosilo.forget.planning import WITH_RUN, ForgetPlan, in_files
from cosilo.forget.remaking import Remade, clear, drop_unasked, held, remake
from cosilo.forget.searching import drop_kept, holding, keep_pieces, pieces_file, pieces_of
from cosilo.lineage.artifacts import ArtifactKind
from cosilo.lineage.beside import FITTED, fitted_in
from cosilo.lineage.processes import ServingProcess
from cosilo.lineage.requests import Evidence, ForgetRequest, ForgetStep, Method, StepState
from cosilo.lineage.store import Lineage, has_lineage
from cosilo.tasks.config import located
from cosilo.tasks.files import lookup

LOCK = "forget.lock"

_LONG_ID = 12  # characters from which an id is looked for in files, as it stands in none by chance
_SWAPPED = 180.0  # seconds for a point to be prepared again
_ENDED = 60.0  # seconds for a process to end
_LOOK = 0.1


@contextmanager
def one_at_a_time(home: DataHome) -> Iterator[None]:
    """Nothing else forgets any of these data, and nothing works on their runs, meanwhile.

    Raises:
        RunBusyError: something does; nothing was touched.
    """
    with ExitStack() as locks:
        for folder in sorted(home.folders):
            try:
                locks.callback(os.close, take_lock(folder / LOCK))
            except RunBusyError:
                raise RunBusyError(
                    f"another `cosilo forget` works on the data in {str(folder)!r}; wait for it"
                ) from None
        for run in home.runs:
            locks.callback(os.close, held(run))
        yield


def begin(home: DataHome, lineage: Lineage, records: RecordRows, plan: ForgetPlan) -> ForgetRequest:
    """Keep the request, so that it is carried out whatever happens from here on; nothing is touched
    yet.

    Raises:
        DataError, StoreError: it cannot be.
    """
    steps = [
        pinned(step, lineage)
        if step.kind == ArtifactKind.DATA and step.note.startswith("[")
        else step
        for step in plan.steps
    ]
    id = os.urandom(16).hex()
    for run in home.runs:
        note_request(run, ids_in(run, records.rows), id)
    _keep_pieces(home, id, records)
    for number, step in enumerate(steps):
        if step.method is Method.ASK:
            keep_names(_names_file(home, id, number), plan.held[step.place, step.artifact])
    return lineage.begin([lineage.name(i) for i in records.ids], steps, id=id)


def left(home: DataHome, lineage: Lineage) -> list[ForgetRequest]:
    """Requests about these data with something left to do, the oldest first; others beside them have
    runs that nobody has found or locked here. What was moved since they began is followed."""
    follow(home, lineage)
    requests = lineage.requests()
    drop_kept(home.folder, requests)
    files = frozenset(map(str, home.files))
    return [
        request
        for request in requests
        if any(step.kind == ArtifactKind.DATA and step.place in files for step in request.steps)
        and not erasure.finished(request, home.folder)
    ]


@dataclass(frozen=True)
class Carried:
    """A request as far as it was carried out.

    Attributes:
        certificate: where its certificate is.
    """

    request: ForgetRequest
    certificate: Path


def carry_out(
    home: DataHome,
    lineage: Lineage,
    request: ForgetRequest,
    say: Callable[[str], None],
    *,
    deleted: Collection[Path] = (),
) -> Carried:
    """Do what is left of `request`, and write its certificate anew; the caller holds `one_at_a_time`.

    Args:
        deleted: runs and files that their owner says were deleted since it began.

    Raises:
        StoreError: something cannot be read or written; the request goes on where it stopped.
    """
    began, cpu = time.time(), time.process_time()
    # One of a request that goes on is another in the end; without it, `left` has it go on to there.
    erasure.certificate_at(home.folder, request.id).unlink(missing_ok=True)
    work = _Work(home, lineage, request, say, deleted)
    for number, step in enumerate(request.steps):
        if not step.settled and number not in work.over:
            work.do(number, step)
    (now,) = (r for r in lineage.requests() if r.id == request.id)
    settled = all(step.settled for step in now.steps)
    for run in home.runs:
        clear(run, request.id)
        if settled:  # until then it is asked whether something serves what was made from them
            with Lineage(run.folder) as there:
                there.part_with(request.id)
    return Carried(now, erasure.certify(lineage, now, home.folder, began=began, cpu=cpu))


class _Work:
    """Does the steps of one request.

    Attributes:
        over: numbers of steps that were done with another.
    """

    def __init__(
        self,
        home: DataHome,
        lineage: Lineage,
        request: ForgetRequest,
        say: Callable[[str], None],
        deleted: Collection[Path],
    ) -> None:
        self.over: set[int] = set()
        self._home = home
        self._lineage = lineage
        self._request = request
        self._say = say
        self._deleted = frozenset(map(str, deleted))
        self._remade: dict[Path, Remade] = {}
        self._missing: set[str] = set()  # places that were told of

    def do(self, number: int, step: ForgetStep) -> None:
        run = next((r for r in self._home.runs if str(r.folder) == step.place), None)
        if step.place in self._deleted:
            self._with_deleted(number, step)
        elif step.kind == ArtifactKind.DATA and step.note.startswith("{"):
            self._doing(number)
            self._done(number, leave_out(step, self._lineage))
            self._say(f"rows left out of {step.place}")
        elif step.method is Method.VERIFY:
            self._search(number)
        elif step.kind == ArtifactKind.ANSWER and not step.artifact:  # a store that runs share
            self._doing(number)
            gone = drop_unasked(Path(step.place), self._home.runs, self._request.id)
            self._done(number, Evidence(what="recorded replies deleted", count=gone))
        elif step.kind == ArtifactKind.SERVED:
            self._served(number, step, run)
        elif step.kind == ArtifactKind.CERTIFICATE and run is not None:
            self._doing(number)
            _tell_of(run, self._request)
            self._gone(run.folder, [step])
            self._done(number, Evidence(what="withdrawn; the run's reports say so", count=1))
        elif not Path(step.place).exists():
            self._ask_for(step.place)
        elif in_files(step):
            self._files(number, step)
        elif step.method is Method.ASK:
            self._ask(number, step, run)
        elif step.method is Method.SHRED and run is not None:
            self._shred(number, step, run)
        elif step.kind == ArtifactKind.ABROAD:
            self._done(number, Evidence(what="nothing was sent"))
        elif run is not None and step.kind in WITH_RUN:
            self._run(run)
        elif run is None:
            self._ask_for(step.place)

    def _ask_for(self, place: str) -> None:
        """Have the owner say, once, where what was there is now."""
        if place not in self._missing:
            self._missing.add(place)
            self._say(f"{place}: {NOT_THERE}")

    def _files(self, number: int, step: ForgetStep) -> None:
        """Delete what lies in files of its own."""
        self._doing(number)
        path = Path(step.place) / step.note  # an absolute path stays one
        if beside := self._kept_in(path) if not step.artifact.startswith(FITTED) else []:
            self._lineage.move(self._request.id, number, StepState.OPEN)
            self._say(
                f"{path} is not deleted, as {beside[0]} lies in it: move what is to stay out of it, "
                "then forget again; name a folder of its own in the plan"
            )
            return
        if step.artifact.startswith(FITTED):
            count = sum(map(_deleted, fitted_in(path)))
            with suppress(OSError):  # something else is in it, and stays
                path.rmdir()
        else:
            count = _deleted(path)
        if has_lineage(Path(step.place)):
            self._gone(Path(step.place), [step])
        self._done(number, Evidence(what="files deleted", count=count))

    def _kept_in(self, folder: Path) -> list[Path]:
        """What of the data, runs, plans and requests lies in a folder that was to be deleted whole."""
        ours = [self._home.folder, *self._home.files]
        ours += [place for run in self._home.runs for place in (run.folder, run.plan.path)]
        return [place for place in ours if place.is_relative_to(folder.resolve())]

    def _with_deleted(self, number: int, step: ForgetStep) -> None:
        """Undo what was made in a place that its owner says was deleted: what lay elsewhere is still
        there."""
        outside = Path(step.place) / step.note.partition("#")[0]
        apart = outside.is_absolute() and not outside.is_relative_to(step.place)
        if step.kind == ArtifactKind.SERVED:
            self._served(number, step, None)
        elif step.method is Method.ASK:
            about = step.note.partition("; ")[0]
            note = f"{about}; the run was deleted, and with it the names that it can be asked by"
            self._lineage.move(self._request.id, number, StepState.UNREACHABLE, note=note)
            _names_file(self._home, self._request.id, number).unlink(missing_ok=True)
        elif step.kind == ArtifactKind.ANSWER and apart and outside.exists():
            self._lineage.move(self._request.id, number, StepState.OPEN)
            self._say(
                f"{outside} has replies that it had asked for, and nobody knows which: delete that, "
                f"too, and say again that {step.place} was deleted"
            )
        elif apart and in_files(step):
            self._files(number, step)
        else:
            self._done(number, Evidence(what="deleted, as its owner says"))

    # ── a run ────────────────────────────────────────────────────────────────

    def _run(self, run: DataRun) -> None:
        """Make a run again, which is all of its steps at once."""
        steps = {
            n: s
            for n, s in enumerate(self._request.steps)
            if s.place == str(run.folder)
            and s.kind in WITH_RUN
            and s.method is not Method.SHRED
            and not s.settled
            and not in_files(s)
        }
        retrain = any(s.method in (Method.RETRAIN, Method.RECHOOSE) for s in steps.values())
        with self._lineage.together():
            for number in steps:
                self._doing(number)
        self._say(f"{run.folder}: is made again" if retrain else f"{run.folder}: is emptied")
        made = self._remade[run.folder] = remake(run, self._request.id, retrain=retrain)
        self._gone(run.folder, list(steps.values()), lost={name for name, _ in made.lost})
        left = f"; {len(made.lost)} points are not there again" if made.lost else ""
        what = f"run made anew, {len(made.points)} points{left}" if retrain else "run emptied"
        evidence = Evidence(what=what, count=len(made.old), digest=_digest(run))
        with self._lineage.together():
            for number in steps:
                self._done(number, evidence)
        self.over |= steps.keys()
        for name, why in made.lost:
            self._say(f"  deleted and not made again: {of_point(name, why)}")
        if made.lost:
            self._say(f"  `cosilo bench {run.plan.path}` makes what is missing, and asks for it")

    def _gone(
        self,
        folder: Path,
        steps: Sequence[ForgetStep],
        *,
        by: Method | None = None,
        lost: Collection[str] = (),
    ) -> None:
        """Note in the lineage of `folder` what the steps undid: by their methods, or `by` another; what
        points in `lost` had made is deleted."""
        with Lineage(folder) as there, there.together():
            maker = {a.id: a.made_by for a in there.standing()}
            for step in steps:
                if step.artifact in maker:
                    method = Method.DELETE if maker[step.artifact] in lost else by or step.method
                    there.gone(step.artifact, str(method))

    # ── what serves ──────────────────────────────────────────────────────────

    def _served(self, number: int, step: ForgetStep, run: DataRun | None) -> None:
        process = ServingProcess.at(step.note.partition(": ")[0])
        known = run is not None or step.place in self._deleted
        if process is None or not process.here or (process.runs and not known):
            self._lineage.move(self._request.id, number, StepState.OPEN)
            return
        self._doing(number)
        made = None if run is None else self._remade.get(run.folder)
        swap = step.method is Method.RETRAIN and run is not None and not (made and made.lost)
        if process.runs:
            self._say(f"{step.note}: {'prepares its points again' if swap else 'is ended'}")
            with suppress(OSError):
                process.tell(signal.SIGHUP if swap else signal.SIGTERM)
        until = time.monotonic() + (_SWAPPED if swap else _ENDED)
        while process.runs and not (swap and self._swapped(Path(step.place), step)):
            if time.monotonic() > until:
                self._lineage.move(self._request.id, number, StepState.OPEN)
                self._say(f"{step.note}: still serves it; end it, then forget again")
                return
            time.sleep(_LOOK)
        if process.runs:
            self._done(number, Evidence(what="serves a point that was prepared again", count=1))
            return
        if run is not None:
            self._gone(run.folder, [step], by=Method.TAKE_DOWN)
        self._done(number, Evidence(what="serves no more", count=1))

    def _ask(self, number: int, step: ForgetStep, run: DataRun | None) -> None:
        """Have another party forget what it has of the run."""
        about = step.note.partition("; ")[0]
        if run is None or peer_of(step) not in run.plan.peers:
            note = f"{about}; the run that asked it is not here any more, or its plan is another"
            self._lineage.move(self._request.id, number, StepState.OPEN, note=note)
            return
        self._doing(number)
        self._say(f"{about}: is asked")
        told = ask_party(
            run,
            peer_of(step),
            forget=_asked_as(self._request.id, number),
            until=step.deadline,
            names=_names_file(self._home, self._request.id, number),
            answers=answers_of(self._home, self._request.id, number),
            say=self._say,
        )
        note = f"{about}; {told.note}" if told.note else about
        self._lineage.move(self._request.id, number, told.state, evidence=told.evidence, note=note)

    def _shred(self, number: int, step: ForgetStep, run: DataRun) -> None:
        """Delete keys of what went to parties that nobody asks, which the run no longer asks for."""
        self._doing(number)
        count, bare = shred_unasked(run, step.note.rpartition(": ")[2].split(", "))
        evidence = Evidence(what="keys deleted", count=count)
        if not bare:
            self._done(number, evidence)
            return
        note = (
            f"{step.note}; {bare} messages of an earlier version are guessable: their digests stay"
        )
        self._lineage.move(
            self._request.id, number, StepState.UNREACHABLE, evidence=evidence, note=note
        )

    def _swapped(self, run: Path, step: ForgetStep) -> bool:
        with Lineage(run, write=False) as there:
            derived = there.derived_from(there.names_of(self._request.id))
        return step.artifact not in {artifact.id for artifact in derived}

    # ── the search ───────────────────────────────────────────────────────────

    def _search(self, number: int) -> None:
        """Look for what is left in every file of the runs and beside the data."""
        kept = pieces_file(self._home.folder, self._request.id)
        self._doing(number)
        if kept.is_file():
            told = json.loads(kept.read_text("utf-8"))
            pieces = [bytes.fromhex(piece) for piece in told["pieces"]]
            beside = {self._home.folder, *(f.parent for f in self._home.files)}
            near = [f for folder in beside for f in folder.iterdir() if f.is_file() and f != kept]
            looked = holding(pieces, [*(run.folder for run in self._home.runs), *near])
            if note := self._before(number) or looked.note:
                self._lineage.move(self._request.id, number, StepState.OPEN, note=note)
                self._say(note)
                return
            what = f"byte search of {looked.read} files found nothing"
            if told["without"]:
                what += f"; {told['without']} texts are too short, or in other records"
            self._done(number, Evidence(what=what, count=len(pieces)))
            drop_kept(self._home.folder, self._lineage.requests())
        else:
            note = f"{str(kept)!r} is gone, which says what to look for: nobody has searched"
            self._lineage.move(self._request.id, number, StepState.UNREACHABLE, note=note)

    def _before(self, number: int) -> str:
        """What has to be done before it is worth saying that nothing was found; empty where nothing."""
        (now,) = (r for r in self._lineage.requests() if r.id == self._request.id)
        begun = (StepState.PLANNED, StepState.DOING)
        left = sorted({step.place for step in now.steps[:number] if step.state in begun})
        if not left:
            return ""
        return f"not done yet in {', '.join(left)}: name the folder of its runs with --runs"

    def _doing(self, number: int) -> None:
        self._lineage.move(self._request.id, number, StepState.DOING)

    def _done(self, number: int, evidence: Evidence) -> None:
        self._lineage.move(self._request.id, number, StepState.DONE, evidence=evidence)


def _tell_of(run: DataRun, request: ForgetRequest) -> None:
    """Have the run's reports say that certificates were withdrawn."""
    told = [w for w in forgotten_of(run.folder) if w.request != request.id]
    told.append(Withdrawal(request.id, request.at, request.records))
    replace_file(run.folder / FORGOTTEN, msgspec.json.encode(told))


def _deleted(path: Path) -> int:
    """Delete a file or a folder; how many files that were."""
    beside = [path.with_name(f"{path.name}{ending}") for ending in ("-wal", "-shm", "-journal")]
    try:
        files = [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else [path, *beside]
        there = [f for f in files if f.exists() and not f.is_symlink()]
        for file in there:
            with suppress(OSError), file.open("r+b") as old:
                overwrite(old.fileno())
        if path.is_dir():
            shutil.rmtree(path)
        else:
            for file in (path, *beside):
                file.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{str(path)!r} cannot be deleted: {error.strerror}") from None
    return len(there)


def _digest(run: DataRun) -> str:
    """Of the data that the run is made of now."""
    try:
        about = json.loads((run.folder / "run.json").read_text("utf-8"))
    except (OSError, ValueError):
        return ""
    return str(about.get("task", ""))


def answers_of(home: DataHome, request: str, number: int) -> Path:
    """Where the answers are kept that a party signed for step `number` of a request."""
    return home.folder / f"forgotten-{request[:12]}-{number}.json"


def _names_file(home: DataHome, request: str, number: int) -> Path:
    return home.folder / f".forget-{request[:12]}-{number}.names"


def _asked_as(request: str, number: int) -> str:
    """What one party is asked under: two runs may have the same one, and an id is for one question."""
    return hashlib.sha256(f"{request}/{number}".encode()).hexdigest()[:32]


def _keep_pieces(home: DataHome, request: str, records: RecordRows) -> None:
    """What the search looks for, kept until it has looked: what it is of is gone by then."""
    texts: list[str] = []
    others: list[str] = []
    places = {resolved(row.where) for row in records.rows}
    for run in home.runs:
        columns = run.plan.task.columns.texts
        for id, row in located(run.plan.task, run.plan.base).items():
            told = [str(lookup(row.values, column, "")) for column in columns]
            if resolved(row.where) in places:  # whatever this run's plan calls it
                texts += [*([id] if len(id) >= _LONG_ID else []), *told]
            else:
                others += [id, *told]
    pieces, without = pieces_of(dict.fromkeys(texts), dict.fromkeys(others))
    kept = {"pieces": [piece.hex() for piece in pieces], "without": without}
    keep_pieces(pieces_file(home.folder, request), kept)
