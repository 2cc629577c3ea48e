"""What was made from a record, against a walk over all paths."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from cosilo.lineage.artifacts import Artifact, ArtifactKind, MadeFrom
from cosilo.lineage.store import Lineage

RECORDS = [f"r{i}" for i in range(6)]
SETS = [f"s{i}" for i in range(4)]


@st.composite
def histories(draw: st.DrawFn) -> tuple[dict[str, set[str]], list[MadeFrom], set[int]]:
    members = {name: draw(st.sets(st.sampled_from(RECORDS), max_size=3)) for name in SETS}
    made = []
    for number in range(draw(st.integers(0, 8))):
        earlier = [f"a{i}" for i in range(number)]
        made.append(
            MadeFrom(
                records=draw(st.frozensets(st.sampled_from(RECORDS), max_size=2)),
                sets=draw(st.frozensets(st.sampled_from(SETS), max_size=2)),
                artifacts=draw(st.frozensets(st.sampled_from(earlier), max_size=2))
                if earlier
                else frozenset(),
            )
        )
    gone = draw(st.sets(st.integers(0, max(0, len(made) - 1)), max_size=2)) if made else set()
    return members, made, gone


@settings(max_examples=40, deadline=None)
@given(histories(), st.sets(st.sampled_from(RECORDS), max_size=3))
def test_the_closure_is_what_a_walk_over_all_paths_finds(
    history: tuple[dict[str, set[str]], list[MadeFrom], set[int]], wanted: set[str]
) -> None:
    members, made, gone = history

    def holds(number: int) -> bool:
        """Whether a path leads from a wanted record to this artifact."""
        source = made[number]
        return (
            bool(source.records & wanted)
            or any(members[name] & wanted for name in source.sets)
            or any(holds(int(id[1:])) for id in source.artifacts)
        )

    with TemporaryDirectory() as folder, Lineage(Path(folder)) as lineage:
        lineage._db.execute("PRAGMA synchronous = OFF")  # no power is cut here, and disks are slow
        for name, records in members.items():
            lineage.gather(name, records)
        for number, source in enumerate(made):
            lineage.note(Artifact(id=f"a{number}", kind=ArtifactKind.HEAD), source)
        for number in gone:
            lineage.gone(f"a{number}", "deleted")
        found = [artifact.id for artifact in lineage.derived(wanted)]
        expected = {f"a{n}" for n in range(len(made)) if holds(n) and n not in gone}
        assert set(found) == expected
        assert len(found) == len(expected)
        place = {id: i for i, id in enumerate(found)}
        for id in found:
            for earlier in made[int(id[1:])].artifacts & place.keys():
                assert place[earlier] < place[id]
