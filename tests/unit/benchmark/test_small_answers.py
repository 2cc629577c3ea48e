"""What small models answered can be forgotten whole."""

from __future__ import annotations

from pathlib import Path

from cosilo.benchmark.small_answers import SmallAnswers, forget_small_answers
from cosilo.benchmark.store import Store
from cosilo.models.kept.replay import request_key
from cosilo.types import Generation, Sampling, user


def test_no_answer_and_no_hash_of_a_question_is_left(tmp_path: Path) -> None:
    store = Store(tmp_path / "run", write=True)
    memory, said = SmallAnswers(store, "small"), "Ottilie Katzenstein"
    for i in range(200):
        memory.put(user(f"q{i}"), Sampling(), Generation(f"{said} {i}"))
    key = request_key("small", user("q3"), Sampling())

    def traces() -> list[bool]:
        stored = b"".join(f.read_bytes() for f in store.path.iterdir() if f.is_file())
        return [trace in stored for trace in (said.encode(), key)]

    assert traces() == [True, True]
    assert (forget_small_answers(store), forget_small_answers(store)) == (200, 0)
    assert traces() == [False, False]
    assert memory.get(user("q3"), Sampling()) is None
    memory.put(user("q3"), Sampling(), Generation("anew"))
    assert memory.get(user("q3"), Sampling()) == Generation("anew")
    store.close()
