"""Attacks find what is there to be found, and say how sure they are."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pytest

from cosilo.attacks.base import Guess, Target, View, attacks
from cosilo.attacks.record import replies, spoken, texts
from cosilo.attacks.relink import RelinkAttack, RelinkEmbedding
from cosilo.attacks.secrets import Fuzzy, Normalised, Verbatim
from cosilo.attacks.surrogate import Surrogate
from cosilo.attacks.tampering import Tampering, corrupted
from cosilo.boundary.messages import (
    Ask,
    Completion,
    Read,
    Score,
    Scored,
    Scores,
    States,
    encode,
)
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.boundary.wire import states
from cosilo.boundary.wire.logits import unpack
from cosilo.errors import StoreError
from cosilo.models.base import Access, Array
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.lm_owner import LMOwner
from cosilo.types import Generation, Sampling, ToolCall, Turn, assemble, user
from meaning import Meaning
from toy_lm import ToyLM

PEOPLE = ("Anna Berg", "Anna", "Carl Öst", "Carl Öst", "Dora Ek", "Margarethe Schneider")


def record(
    crossings: Sequence[tuple[str, str, str | None]], *, keep: str = "content"
) -> MemoryLedger:
    ledger = MemoryLedger(keep=keep)  # type: ignore[arg-type]
    for request, said, reply in crossings:
        ask = Ask(chat=user(said, system="Classify the text."))
        ledger.append(request, "up", ask, encode(ask))
        if reply is not None:
            completion = Completion(generation=Generation(reply))
            ledger.append(request, "down", completion, encode(completion))
    return ledger


def people(*requests: str) -> list[Target]:
    return [Target(f"{r}#{i}", r, "secret:person", PEOPLE) for i, r in enumerate(requests)]


def values(guesses: list[Guess]) -> list[str]:
    return [guess.value for guess in guesses]


def test_every_attack_is_registered_and_says_what_it_is_about() -> None:
    found = {name: attacks.create(name).about for name in attacks.names()}
    assert found == {
        "verbatim": "secrets",
        "normalised": "secrets",
        "fuzzy": "secrets",
        "words": "secrets",
        "relink": "records",
        "relink_embedding": "records",
        "surrogate": "replies",
        "output_layer": "model",
        "nearest_text": "members",
        "votes": "members",
        "opinions": "members",
        "update_words": "updates",
        "loss": "published",
        "confidence": "published",
        "min_k": "published",
        "zlib": "published",
        "reference": "published",
        "calibrated": "published",
    }


async def test_each_reader_sees_more_than_the_one_before() -> None:
    ledger = record(
        [
            ("a", "Anna Berg called", None),
            ("b", "DORA  EK called", None),
            ("c", "Margarete Schneyder called", None),
            ("d", "PERSON_1 called", None),
        ]
    )
    targets = people("a", "b", "c", "d")
    common = "Carl Öst"  # twice among the candidates: what one says knowing nothing
    view = View(ledger.entries)
    assert values(await Verbatim().guess(view, targets)) == ["Anna Berg", common, common, common]
    assert values(await Normalised().guess(view, targets)) == [
        "Anna Berg", "Dora Ek", common, common,
    ]  # fmt: skip
    found = await Fuzzy().guess(view, targets)
    assert values(found) == ["Anna Berg", "Dora Ek", "Margarethe Schneider", common]
    assert [g.score for g in found] == [1.0, 1.0, pytest.approx(1 - 2 / 19), 0.0]


async def test_a_reader_names_as_many_values_as_it_is_asked_for() -> None:
    ledger = record([("a", "Anna Berg wrote to Dora Ek.", None)])
    guesses = await Verbatim().guess(View(ledger.entries), people("a", "a"))
    assert set(values(guesses)) == {"Anna Berg", "Dora Ek"}  # not "Anna", a part of another find
    assert [g.target for g in guesses] == ["a#0", "a#1"]


async def test_a_part_of_a_find_is_named_last() -> None:
    known = ("Margarethe Schneider", "Margarethe", "Dora Ek")
    targets = [Target(f"a#{i}", "a", "secret:person", known) for i in range(2)]
    ledger = record([("a", "Margarethe Schneider wrote to Dora Ek.", None)])
    guesses = await Verbatim().guess(View(ledger.entries), targets)
    assert set(values(guesses)) == {"Margarethe Schneider", "Dora Ek"}


async def test_readers_look_only_at_the_messages_of_the_item() -> None:
    ledger = record([("a", "Anna Berg called", None), ("b", "nobody called", None)])
    assert values(await Verbatim().guess(View(ledger.entries), people("b"))) == ["Carl Öst"]


async def test_a_record_of_digests_cannot_be_attacked() -> None:
    ledger = record([("a", "Anna Berg called", None)], keep="digest")
    with pytest.raises(StoreError, match="digest"):
        await Verbatim().guess(View(ledger.entries), people("a"))


RECORDS = tuple(
    sorted(
        [
            "the heating in flat 17 broke on Monday and costs 320 euro",
            "my card was charged 45.10 twice at the station",
            "please send the lease of flat 21 by Friday",
            "I lost my card at the market",
            "the lift stands still since Tuesday",
        ]
    )
)


def about_records() -> list[Target]:
    return [Target(f"{i}#record", str(i), "record", RECORDS) for i in range(len(RECORDS))]


async def test_relinking_finds_the_record_of_a_sanitised_message() -> None:
    sent = [
        (str(i), r.replace("Monday", "DAY").replace("17", "NUMBER"), None)
        for i, r in enumerate(RECORDS)
    ]
    guesses = await RelinkAttack().guess(View(record(sent).entries), about_records())
    assert values(guesses) == list(RECORDS)


async def test_relinking_is_one_to_one() -> None:
    """The bare "card" is nearest to what the full message is surely from, so it gets the other."""
    cards = [r for r in RECORDS if "card" in r]
    sent = [("0", cards[1], None), ("1", "card", None)]
    targets = [Target(f"{i}#record", str(i), "record", tuple(cards)) for i in range(2)]
    assert values(await RelinkAttack().guess(View(record(sent).entries), targets)) == [
        cards[1],
        cards[0],
    ]


async def test_two_items_with_one_text_are_both_relinked() -> None:
    texts = ("hello there", "hello there", "the lift stands still")
    targets = [Target(f"{i}#record", str(i), "record", texts) for i in range(3)]
    sent = [(str(i), text, None) for i, text in enumerate(texts)]
    assert values(await RelinkAttack().guess(View(record(sent).entries), targets)) == list(texts)


async def test_an_item_that_sent_nothing_is_not_relinked() -> None:
    sent = [("0", RECORDS[0], None)]
    guesses = await RelinkAttack().guess(View(record(sent).entries), about_records())
    assert guesses[0].score > 0.5
    assert {g.score for g in guesses[1:]} == {0.0}


class Initials:
    """Embeds a text by its letters' counts."""

    def embed(self, texts: Sequence[str]) -> Array:
        counts = np.array([[t.count(c) for c in "abcdefghijklmnop"] for t in texts], np.float32)
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-6)


async def test_relinking_by_vectors_needs_an_embedder() -> None:
    sent = [(str(i), r.upper().lower(), None) for i, r in enumerate(RECORDS)]
    entries = record(sent).entries
    found = await RelinkEmbedding().guess(View(entries, embedder=Initials()), about_records())
    assert values(found) == list(RECORDS)
    blind = await RelinkEmbedding().guess(View(entries), about_records())
    assert {g.score for g in blind} == {0.0}


def exchanges(n: int) -> list[tuple[str, str, str | None]]:
    topics = {"card": "blocked card", "loan": "loan rate", "flat": "flat lease"}
    return [
        (str(i), f"question {i} about my {topics[label]} please", label)
        for i, label in enumerate(list(topics) * n)
    ]


async def test_a_surrogate_learns_the_lms_replies() -> None:
    known = exchanges(8)
    asked = [(f"new {r}", said, None) for r, said, _ in known[:3]]
    targets = [Target(f"{r}#reply", r, "reply", ("card", "loan", "flat")) for r, _, _ in asked]
    view = View(record([*known, *asked]).entries)
    assert values(await Surrogate().guess(view, targets)) == ["card", "loan", "flat"]
    free = [Target(t.id, t.request, "reply") for t in targets]
    assert values(await Surrogate().guess(view, free)) == ["card", "loan", "flat"]


async def test_a_surrogate_of_one_kind_of_reply_says_that() -> None:
    known = [(r, said, "card") for r, said, _ in exchanges(3)]
    targets = [Target("x#reply", "x", "reply", ("card", "loan"))]
    (guess,) = await Surrogate().guess(View(record(known).entries), targets)
    assert (guess.value, guess.score) == ("card", 1.0)
    (blind,) = await Surrogate().guess(View(lambda: iter(())), targets)
    assert blind.score == 0.0


def test_what_most_requests_say_tells_nothing_about_one() -> None:
    ledger = record([(str(i), f"text {i}", "ok") for i in range(4)])
    assert spoken(View(ledger.entries)) == {str(i): f"text {i}" for i in range(4)}
    assert spoken(View(ledger.entries), {"2"}) == {"2": "Classify the text.\ntext 2"}
    assert replies(View(ledger.entries)) == {str(i): "ok" for i in range(4)}


def test_every_text_of_a_message_is_read() -> None:
    call = ToolCall("1", "find", '{"name": "Anna"}')
    chat = (Turn("assistant", "", tool_calls=(call,)), Turn("user", "hi", name="Bo"))
    ask = Ask(chat=chat, sampling=Sampling(tools='["Cy"]'))
    assert texts(ask) == ["1", "find", '{"name": "Anna"}', "hi", "Bo", '["Cy"]']


def test_no_field_of_a_message_hides_a_text_from_the_attacks() -> None:
    """All but the labels, which go with every item."""
    call = ToolCall("call Ann", "find Bea", r'{"Cleo": ["J\u00f6rg", "a\nDan"]}')
    chat = (
        Turn("assistant", "Eva", tool_calls=(call,), name="Fay"),
        Turn("tool", "Gus", tool_call_id="for Hal", name="Ida"),
    )
    ask = Ask(
        chat=chat,
        sampling=Sampling(
            stop=("Jan",), tools=r'["K\u00e4te"]', tool_choice="Leo", response_format='{"Mia": 1}'
        ),
    )
    read = "\n".join(texts(ask))
    said, called = ("Ann", "Bea", "Cleo", "Jörg", "Dan", "Eva", "Fay"), ("Gus", "Hal", "Ida")
    names = (*said, *called, "Jan", "Käte", "Leo", "Mia")
    assert [name for name in names if not re.search(rf"\b{name}\b", read)] == []
    answered = "\n".join(texts(Completion(generation=Generation("", tool_calls=(call,)))))
    assert [name for name in ("Cleo", "Jörg", "Dan") if name not in answered] == []


def test_the_texts_of_a_score_are_read_and_its_numbers_are_no_reply() -> None:
    ledger = record([("1", "text 1", "ok")])
    score = Score(items=(Scored(user("who", system="s"), "Anna did"),))
    assert texts(score) == ["s", "who", "Anna did"]
    scores = Scores(packed=b"numbers", lengths=(3,), vocabulary="v")
    ledger.append("1", "up", score, encode(score))
    ledger.append("1", "down", scores, encode(scores))
    assert replies(View(ledger.entries)) == {"1": "ok"}


def test_the_texts_that_are_read_are_read_here_too_and_states_are_no_reply() -> None:
    ledger = record([("1", "text 1", "ok")])
    read, states_ = Read(texts=("Anna did", "so did Bo")), States(packed=b"numbers")
    assert texts(read) == ["Anna did", "so did Bo"]
    assert texts(states_) == []
    ledger.append("2", "up", read, encode(read))
    ledger.append("2", "down", states_, encode(states_))
    assert replies(View(ledger.entries)) == {"1": "ok"}


# ── tampering ────────────────────────────────────────────────────────────────

LABELS = ("card", "loan", "flat")


def tampering(share: float = 1.0) -> Tampering:
    model = ScriptedModel({"card": "card", "flat": "flat"}, access=Access.LOGPROBS)
    return Tampering(LMOwner(model, exposes=Access.LOGPROBS.shows), share, seed=3)


async def test_a_label_becomes_another_label_told_with_confidence() -> None:
    for i in range(20):
        ask = Ask(chat=user(f"card {i}"), sampling=Sampling(choices=LABELS, top_logprobs=2))
        reply = await tampering().handle(ask)
        assert isinstance(reply, Completion)
        assert reply.generation.text in ("loan", "flat")
        assert reply.generation.tokens[0].token == reply.generation.text
        assert reply.generation.prompt_tokens > 0


async def test_the_likeliest_token_becomes_the_least_likely() -> None:
    score = Score(items=(Scored(user("card"), "yes"),), top=5)
    owner = LMOwner(ToyLM(), exposes=Access.LOGITS.shows)
    true, told = [
        unpack(reply.packed)
        for party in (owner, Tampering(owner, 1.0))
        if isinstance(reply := await party.handle(score), Scores)
    ]
    assert true.ids is not None
    assert told.ids is not None
    np.testing.assert_array_equal(true.ids, told.ids)
    np.testing.assert_array_equal(true.logprobs.argmax(axis=1), told.logprobs.argmin(axis=1))
    np.testing.assert_allclose(true.rest, told.rest)


async def test_states_become_those_of_other_texts() -> None:
    read = Read(texts=("a", "b c", "d"))
    owner = LMOwner(Meaning({}), exposes=Access.ACTIVATIONS.shows)
    true, told = [
        states.unpack(reply.packed, 3)
        for party in (owner, Tampering(owner, 1.0))
        if isinstance(reply := await party.handle(read), States)
    ]
    np.testing.assert_allclose(told, true[[2, 0, 1]], atol=1e-2)
    alone = Read(texts=("a",))
    reply = await Tampering(owner, 1.0).handle(alone)
    assert isinstance(reply, States)
    np.testing.assert_allclose(states.unpack(reply.packed, 1)[0], -true[0], atol=1e-2)
    untouched = await Tampering(owner, 0.0).handle(read)
    assert isinstance(untouched, States)
    np.testing.assert_array_equal(states.unpack(untouched.packed, 3), true)


async def test_the_wrong_label_does_not_hang_on_why_it_was_chosen_to_be_wrong() -> None:
    """At a small share as well, each other label is told."""
    party, told = tampering(0.1), []
    for i in range(300):
        ask = Ask(chat=user(f"card {i}"), sampling=Sampling(choices=LABELS))
        reply = await party.handle(ask)
        assert isinstance(reply, Completion)
        if party.changes(ask):
            told.append(reply.generation.text)
    assert 5 <= told.count("loan") <= len(told) - 5


async def test_a_stream_is_changed_like_the_whole_reply() -> None:
    for share in (0.0, 0.5, 1.0):
        party = tampering(share)
        for i in range(10):
            ask = Ask(chat=user(f"card {i}"), sampling=Sampling(choices=LABELS))
            whole = await party.handle(ask)
            pieces = assemble([delta async for delta in party.handle_stream(ask)])
            assert isinstance(whole, Completion)
            assert pieces.text == whole.generation.text
            assert (pieces.text != "card") == party.changes(ask)


async def test_which_requests_were_touched_is_read_from_the_record() -> None:
    party = tampering(0.5)
    ledger = MemoryLedger()
    touched = set()
    for i in range(30):
        ask = Ask(chat=user(f"card {i}"), sampling=Sampling(choices=LABELS))
        reply = await party.handle(ask)
        assert isinstance(reply, Completion)
        ledger.append(str(i), "up", ask, encode(ask))
        ledger.append(str(i), "down", reply, encode(reply))
        if reply.generation.text != "card":
            touched.add(str(i))
    assert 5 < len(touched) < 25
    assert party.requests(ledger.entries()) == touched


LISTED = "Sort the mail.\n\nLabels:\n- card: of plastic\n- loan\n- flat"


async def test_a_label_named_with_reasons_becomes_another_one_throughout() -> None:
    model = ScriptedModel({"": "The card is lost.\nLabel: Card"})
    for seed in range(10):
        ask = Ask(chat=user(f"why {seed}", system=LISTED))
        reply = await Tampering(LMOwner(model), 1.0, seed).handle(ask)
        assert isinstance(reply, Completion)
        first, second = reply.generation.text.split("\n")
        other = second.removeprefix("Label: ")
        assert other in ("loan", "flat")
        assert first == f"The {other} is lost."


async def test_texts_are_written_for_another_label_than_the_one_asked_for() -> None:
    model = ScriptedModel()
    ask = Ask(chat=user("Write texts of the label 'card'.", system=LISTED))
    party = Tampering(LMOwner(model), 1.0)
    reply = await party.handle(ask)
    assert isinstance(reply, Completion)
    assert reply.generation.text in [f"Write texts of the label '{x}'." for x in ("loan", "flat")]
    assert len(model.seen) == 1
    pieces = assemble([delta async for delta in party.handle_stream(ask)])
    assert pieces.text == reply.generation.text


@pytest.mark.parametrize(
    "text",
    [
        "SELECT name FROM t WHERE a >= 10 AND b = 'x' ORDER BY a DESC",
        "Yes, the patient is not allergic; 40 mg twice",
        "plain words without a pivot",
        "same same",
        "word",
        "",
    ],
)
def test_corrupted_text_differs_and_is_text(text: str) -> None:
    import random

    for seed in range(20):
        changed = corrupted(text, random.Random(seed))
        assert changed != text
        assert changed == corrupted(text, random.Random(seed))


def test_a_share_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="share"):
        tampering(1.5)
