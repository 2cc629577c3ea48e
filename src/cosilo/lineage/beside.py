"""What was made of a whole file or folder that no run knows, noted in the lineage beside it.

`cosilo fit` reads files of texts, and has no records to name; a bundle is served far from its run. What
came of them is found by their place.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cosilo.errors import ConfigError, StoreError
from cosilo.lineage.artifacts import Artifact, ArtifactKind, MadeFrom
from cosilo.lineage.processes import ServingProcess
from cosilo.lineage.store import Lineage, has_lineage

FITTED = "fit/"
"""What ids of artifacts begin with that `cosilo fit` made."""

_MADE = ("model", "model.gguf*", ".model.*", "work", "measured.json", "measured.new", "point.toml")


def note_fitted(out: Path, files: Iterable[Path]) -> list[Path]:
    """Note that the folder `out` is about to be made of these files; those beside which nothing can be
    noted are returned."""
    left: list[Path] = []
    place = str(out.resolve())
    for file in sorted({file.resolve() for file in files}):
        inside = out.resolve().is_relative_to(file.parent)  # then it is moved with the file
        artifact = Artifact(
            id=f"{FITTED}{place}",
            kind=ArtifactKind.WEIGHTS,
            place=str(out.resolve().relative_to(file.parent)) if inside else place,
            made_by="cosilo fit",
        )
        if _older_run(file.parent):
            left.append(file)
            continue
        try:
            with Lineage(file.parent) as lineage, lineage.together():
                lineage.gather(_set_of(file), ())
                lineage.note(artifact, MadeFrom(sets=frozenset({_set_of(file)})))
        except (StoreError, ConfigError):
            left.append(file)
    return left


def fitted_of(file: Path) -> tuple[Artifact, ...]:
    """What `cosilo fit` made of the file and is there still."""
    file = file.resolve()
    if not has_lineage(file.parent):
        return ()
    with Lineage(file.parent, write=False) as lineage:
        return tuple(
            artifact
            for artifact in lineage.standing()
            if artifact.id.startswith(FITTED) and _set_of(file) in lineage.sources(artifact.id).sets
        )


def fitted_in(folder: Path) -> list[Path]:
    """What lies in the folder that `cosilo fit` makes there, also where it was stopped; whatever else
    is there is somebody else's."""
    return sorted({found for pattern in _MADE for found in folder.glob(pattern)})


def _older_run(folder: Path) -> bool:
    """Whether a run lies there of a version that noted nothing: all of it counts as made from each of
    its records as long as no lineage says otherwise, so none is begun for anything else."""
    return (folder / "run.sqlite").is_file() and not has_lineage(folder)


def _set_of(file: Path) -> str:
    return f"file/{file.name}"


def note_serving(bundle: Path, place: str) -> bool:
    """Note that the process at `place` is about to serve a bundle; False where nothing can be noted
    beside it."""
    bundle = bundle.resolve()
    if _older_run(bundle.parent):
        return False
    try:
        with Lineage(bundle.parent) as lineage, lineage.together():
            for served in _serving(lineage, bundle):
                process = ServingProcess.at(served.place)
                if process is not None and process.here and not process.runs:
                    lineage.gone(served.id, "ended")
            if all(artifact.id != _bundle_id(bundle) for artifact in lineage.standing()):
                lineage.note(
                    Artifact(id=_bundle_id(bundle), kind=ArtifactKind.BUNDLE, place=bundle.name),
                    MadeFrom(),
                )
            lineage.note(
                Artifact(
                    id=f"served/{place}",
                    kind=ArtifactKind.SERVED,
                    place=place,
                    made_by="cosilo serve",
                ),
                MadeFrom(artifacts=frozenset({_bundle_id(bundle)})),
            )
    except (StoreError, ConfigError):
        return False
    return True


def serving(bundle: Path) -> tuple[Artifact, ...]:
    """The processes that were noted to serve the bundle."""
    bundle = bundle.resolve()
    if not has_lineage(bundle.parent):
        return ()
    with Lineage(bundle.parent, write=False) as lineage:
        return _serving(lineage, bundle)


def _serving(lineage: Lineage, bundle: Path) -> tuple[Artifact, ...]:
    return tuple(
        artifact
        for artifact in lineage.standing()
        if artifact.kind is ArtifactKind.SERVED
        and _bundle_id(bundle) in lineage.sources(artifact.id).artifacts
    )


def _bundle_id(bundle: Path) -> str:
    return f"{ArtifactKind.BUNDLE}/{bundle.name}"
