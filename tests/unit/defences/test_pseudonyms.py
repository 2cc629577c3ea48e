"""The pseudonym defence through the real boundary: what the LM sees, and what comes back."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from cosilo.boundary.messages import Ask, Completion, Message, Request, Score, Scored
from cosilo.defences.base import Defence
from cosilo.defences.detection import Span
from cosilo.defences.pseudonyms import Pseudonym
from cosilo.errors import ConfigError, PrivacyError
from cosilo.testing import DefenceContract
from cosilo.types import Chat, Generation, ToolCall, Turn, assemble, last_user, user
from scripted_detectors import PEOPLE, Broken, Make, Talk, Words
from scripted_detectors import make as make


class TestContract(DefenceContract):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.key_file = tmp_path / "key"

    def defence(self) -> Defence:
        return Pseudonym(detectors=("patterns",), key_file=self.key_file)


async def test_a_hint_says_where_a_hidden_value_stands_and_not_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "shop.sql").write_text(
        "CREATE TABLE cars (make text); INSERT INTO cars VALUES ('Ford');"
    )
    seen: list[Ask] = []

    async def forward(message: Message) -> Message:
        assert isinstance(message, Ask)
        seen.append(message)
        shown = last_user(message.chat).split()[3]
        return Completion(generation=Generation(f"SELECT * FROM cars WHERE make = '{shown}'"))

    defence = Pseudonym(
        detectors=["literals"],
        system="public",
        replies="sql",
        databases=tmp_path,
        hints=True,
        key_file=tmp_path / "key",
    )
    ask = Ask(chat=user("How many red Ford cars?", system="CREATE TABLE cars (make text)"))
    reply = await defence.guard(ask, forward, request="r")
    question, _, hint = last_user(seen[0].chat).partition("\n\n")
    assert "Ford" not in last_user(seen[0].chat)
    assert hint == f"{question.split()[3]!r} is a value of cars.make."
    assert isinstance(reply, Completion)
    assert reply.generation.text == "SELECT * FROM cars WHERE make = 'Ford'"


class TestConversations:
    def test_two_people_in_two_messages_stay_two(self, make: Make) -> None:
        chat = (
            Turn("user", "Alice Brown wrote."),
            Turn("assistant", "Noted."),
            Turn("user", "So did John Roe."),
        )
        talk = Talk(make(PEOPLE), lambda c: Generation(f"{c[0].content} {c[2].content}"))
        assert talk.send(chat).text == "Alice Brown wrote. So did John Roe."
        assert "Alice" not in talk.seen
        assert "Roe" not in talk.seen

    def test_a_value_has_one_placeholder_in_all_turns(self, make: Make) -> None:
        chat = (
            Turn("system", "You help Alice Brown."),
            Turn("user", "Write to Alice Brown."),
            Turn("assistant", "Dear Alice Brown"),
            Turn("user", "Shorter."),
        )
        talk = Talk(make(PEOPLE))
        talk.send(chat)
        names = [t.content.split()[-1].strip(".") for t in talk.model.seen[-1][:3]]
        assert len(set(names)) == 1
        assert names[0].startswith("PERSON_")

    def test_a_name_found_once_is_hidden_everywhere(self, make: Make) -> None:
        class OnlyFirst:
            def detect(self, text: str, public: str = "") -> list[Span]:
                return [Span(11, 21, "PERSON")] if text.startswith("My name is ") else []

        text = "My name is Zuzka Nagy. ZUZKA NAGY, that is; zuzka nagyová is my aunt."
        talk = Talk(make(OnlyFirst()))
        assert talk.send(user(text)).text == text
        assert "zuzka" not in talk.seen.casefold()
        assert "nagy" not in talk.seen.casefold().replace("nagyová", "")
        assert " nagyová is my aunt" in talk.seen  # another word, and nobody reported it

    def test_the_same_conversation_gives_the_same_prompt_and_another_does_not(
        self, make: Make
    ) -> None:
        prompts = []
        for request in ("a", "a", "b"):
            talk = Talk(make(PEOPLE))  # a new process, with the same key
            talk.send(user("Alice Brown wrote."), request)
            prompts.append(talk.seen)
        assert prompts[0] == prompts[1]
        assert prompts[0] != prompts[2]

    def test_first_turn_makes_the_conversation_where_asked(self, make: Make) -> None:
        talk = Talk(make(PEOPLE, conversation="first-turn"))
        first = user("Alice Brown wrote.")
        later = (*first, Turn("assistant", "Alice Brown?"), Turn("user", "Yes, Alice Brown."))
        talk.send(first, "1")
        one = talk.seen.split()[0]
        talk.send(later, "2")
        assert talk.seen.count(one) == 3
        talk.send(user("Hello, Alice Brown here."), "3")
        assert one not in talk.seen

    def test_what_one_message_hid_the_next_of_the_same_request_hides_too(self, make: Make) -> None:
        class OnlyFirst:
            def detect(self, text: str, public: str = "") -> list[Span]:
                return [Span(0, 5, "PERSON")] if text.startswith("Zuzka is") else []

        talk = Talk(make(OnlyFirst()))
        talk.send(user("Zuzka is my name"), "item")
        talk.send(user("What did zuzka and Zuzka say?"), "item")
        assert "zuzka" not in talk.seen.casefold()

    def test_counts_say_how_many_of_each_kind(self, make: Make) -> None:
        defence = make(PEOPLE)
        Talk(defence).send(user("Alice Brown, Alice Brown, John Roe, alice@x.org"), "r9")
        assert dict(defence.counts("r9")) == {"PERSON": 2, "EMAIL": 1}
        assert dict(defence.counts("never")) == {}

    def test_memory_is_bounded(self, make: Make) -> None:
        defence = make(PEOPLE, remember=3)
        talk = Talk(defence)
        for i in range(9):
            talk.send(user("Alice Brown wrote."), f"r{i}")
        assert len(defence._vaults) == 3
        assert not defence.counts("r0")
        assert defence.counts("r8")


class TestInjection:
    def test_a_typed_placeholder_comes_back_as_typed(self, make: Make) -> None:
        defence = make(PEOPLE)
        talk = Talk(defence)
        talk.send(user("Alice Brown wrote."))
        stolen = talk.seen.split()[0]
        for typed in (stolen, stolen.lower(), stolen.replace("_", r"\_"), "PERSON_abcdef"):
            text = f"What is {typed}?"
            assert talk.send(user(text)).text == text
            assert typed not in talk.seen
            assert "".join(d.text for d in talk.stream(user(text))) == text

    def test_an_invented_placeholder_stays(self, make: Make) -> None:
        talk = Talk(make(PEOPLE), lambda c: Generation("Ask PERSON_abcdef or PERSON_abc."))
        assert talk.send(user("Alice Brown wrote.")).text == "Ask PERSON_abcdef or PERSON_abc."

    def test_a_tool_keeps_the_name_that_the_conversation_called_it_by(self, make: Make) -> None:
        call = ToolCall("c", "Alice Brown", "{}")
        called = (*user("Go on."), Turn("assistant", "", tool_calls=(call,)))
        chat = (*called, Turn("tool", "ok", tool_call_id="c"))
        talk = Talk(make(PEOPLE), lambda c: Generation("", tool_calls=c[1].tool_calls))
        assert [c.name for c in talk.send(chat).tool_calls] == ["Alice Brown"]
        assert "Alice" not in talk.model.seen[-1][1].tool_calls[0].name
        streamed = assemble(talk.stream(chat)).tool_calls
        assert [c.name for c in streamed] == ["Alice Brown"]

    def test_a_value_does_not_come_back_as_the_name_of_a_tool_that_nobody_has(
        self, make: Make
    ) -> None:
        def reply(chat: Chat) -> Generation:
            shown = chat[-1].content.split()[0]
            return Generation("", tool_calls=(ToolCall("c", shown, "{}"),))

        talk = Talk(make(PEOPLE), reply)
        [call] = talk.send(user("Alice Brown wrote.")).tool_calls
        assert "Alice" not in call.name
        [call] = assemble(talk.stream(user("Alice Brown wrote."))).tool_calls
        assert "Alice" not in call.name

    @pytest.mark.parametrize(
        "mangle",
        [
            str.lower,
            str.upper,
            lambda p: p.replace("_", r"\_"),
            lambda p: p.replace("_", " "),
            lambda p: p.replace("_", "-"),
            lambda p: f"**{p}**'s",
            lambda p: f'"{p}"',
        ],
    )
    def test_what_models_make_of_placeholders_is_restored(
        self, make: Make, mangle: Callable[[str], str]
    ) -> None:
        def reply(chat: Chat) -> Generation:
            return Generation(f"To {mangle(chat[-1].content.split()[0])}!")

        talk = Talk(make(PEOPLE), reply)
        assert "Alice Brown" in talk.send(user("Alice Brown wrote.")).text
        assert "Alice Brown" in "".join(d.text for d in talk.stream(user("Alice Brown wrote.")))

    def test_a_placeholder_cut_short_restores_nobody(self, make: Make) -> None:
        talk = Talk(make(PEOPLE), lambda c: Generation(c[-1].content.split()[0][:-1]))
        assert "Alice" not in talk.send(user("Alice Brown wrote.")).text


class TestNeighbours:
    @pytest.mark.parametrize("between", ["", ".", ",", ", ", "-", ":", "/", "_"])
    def test_values_side_by_side_come_back_under_any_key(self, make: Make, between: str) -> None:
        """A code may end with a digit, and a surrogate may not follow a digit and a point."""
        words = Words(**{"Ann": "PERSON", "Bob": "VALUE", "05": "NUMBER", "three": "COUNT"})
        defence = make(words)
        text = f"see Ann{between}Bob{between}three{between}Ann{between}05 and Bob{between}05 now"
        talk = Talk(defence)
        for i in range(100):  # a conversation's placeholders are drawn anew
            assert talk.send(user(text), f"r{i}").text == text


class TestSpellings:
    """A value is hidden however it is written; what comes back is what was written."""

    @pytest.mark.parametrize(
        ("text", "rests"),
        [
            ("write to jane\u200b.doe@example.com", ["jane", "doe"]),
            ("card 4111\u00a01111\u00a01111\u00a01111", ["4111", "1111"]),
            ("card 4111\u200b1111\u200b1111\u200b1111", ["4111", "1111"]),
            ("ssn 123\u201145\u20116789", ["123", "6789"]),
            ("my name is Jose\u0301 Mu\u0308ller", ["Jose", "ller"]),
            ("mail \uff4a\uff41\uff4e\uff45\uff20\uff58\uff0e\uff43\uff4f\uff4d", ["\uff4a\uff41"]),
            (r"""{"mail": "j\u006frg.m@example.com"}""", ["rg.m", "j\\"]),
            ("write to jane&#46;doe@example.com", ["jane", "doe"]),
            ("card \u20664111111111111111\u2069", ["4111"]),
        ],
    )
    def test_no_part_of_it_leaves(self, make: Make, text: str, rests: list[str]) -> None:
        talk = Talk(make())
        back = talk.send(user(text)).text
        # What the strings of JSON say comes back; it may be written with other escapes.
        assert (json.loads(back) == json.loads(text)) if text[0] == "{" else back == text
        assert not [rest for rest in rests if rest in talk.seen]


class TestFailsClosed:
    def test_a_failing_detector_sends_nothing_and_says_nothing(self, make: Make) -> None:
        talk = Talk(make(Broken()))
        with pytest.raises(PrivacyError) as caught:
            talk.send(user("my secret"))
        assert "secret" not in str(caught.value)
        with pytest.raises(PrivacyError) as caught:
            talk.stream(user("my secret"))
        assert "secret" not in str(caught.value)
        assert caught.value.__context__ is None, "the detector's own words stay with it"
        assert not talk.model.seen
        assert not list(talk.boundary.ledger.entries())

    def test_no_time_left_sends_nothing(self, make: Make) -> None:
        talk = Talk(make(PEOPLE, seconds=1e-9))
        with pytest.raises(PrivacyError, match="TimeoutError"):
            talk.send(user("Alice Brown"))
        assert not talk.model.seen

    def test_a_message_that_states_nothing_is_stopped_unless_it_has_nothing_private(
        self, make: Make
    ) -> None:
        class Note(Request[Completion], frozen=True, kw_only=True):
            reply: ClassVar[type[Message]] = Completion
            notes: tuple[str, ...] = ()
            packed: bytes = b""
            numbers: tuple[float, ...] = ()
            number: float = 0.0

        sent: list[Message] = []

        async def forward(message: Message) -> Message:
            sent.append(message)
            return Completion(generation=Generation("ok"))

        defence = make(PEOPLE)
        # Numbers may be the states or gradients of a private text.
        for note in (Note(notes=("x",)), Note(packed=b"x"), Note(numbers=(1.0,))):
            with pytest.raises(PrivacyError, match="Note"):
                asyncio.run(defence.guard(note, forward, request="r"))
        assert not sent
        asyncio.run(defence.guard(Note(number=1.0), forward, request="r"))
        assert len(sent) == 1

    def test_replies_to_be_scored_are_stopped(self, make: Make) -> None:
        """Its probabilities would be those of another text than the small model learns from."""

        async def forward(message: Message) -> Message:
            raise AssertionError("it was sent")

        score = Score(items=(Scored(user("Hello."), "Alice Brown"),))
        with pytest.raises(PrivacyError, match="Score"):
            asyncio.run(make(PEOPLE).guard(score, forward, request="r"))

    def test_the_key_is_private_and_kept(self, make: Make, tmp_path: Path) -> None:
        key = tmp_path / "deep" / "key"
        Talk(make(PEOPLE, key_file=key)).send(user("Alice Brown"))
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        before = key.read_bytes()
        Talk(make(PEOPLE, key_file=key)).send(user("Alice Brown"))
        assert key.read_bytes() == before
        key.chmod(0o644)
        with pytest.raises(PrivacyError):
            Talk(make(PEOPLE, key_file=key)).send(user("Alice Brown"))

    def test_options_that_make_no_sense_are_refused(self) -> None:
        from cosilo.defences.base import defences

        for options in ({"detectors": ()}, {"min_score": 2.0}, {"seconds": 0}, {"remember": 0}):
            with pytest.raises(ConfigError):
                defences.create("pseudonym", **options)


class TestWhatIsPublic:
    def test_labels_survive_and_are_not_restored(self, make: Make) -> None:
        labels = ("Alice Brown", "other")
        talk = Talk(make(PEOPLE), lambda c: Generation("Alice Brown"))
        reply = talk.send(user("Is it Alice Brown or John Roe?"), choices=labels)
        assert reply.text == "Alice Brown"
        assert "Alice Brown" in talk.seen
        assert "John Roe" not in talk.seen
        pieces = talk.stream(user("Is it Alice Brown?"), choices=labels)
        assert "".join(d.text for d in pieces) == "Alice Brown"

    def test_a_public_system_turn_is_sent_as_it_is(self, make: Make) -> None:
        chat = user("Is Alice Brown or John Roe there?", system="Schema: Alice Brown")
        talk = Talk(make(PEOPLE, system="public"))
        talk.send(chat)
        assert talk.model.seen[-1][0].content == "Schema: Alice Brown"
        assert talk.model.seen[-1][1].content.startswith("Is Alice Brown or PERSON_")
        talk = Talk(make(PEOPLE))
        talk.send(chat)
        assert "Alice" not in talk.seen

    def test_allowed_words_and_kinds_stay(self, make: Make) -> None:
        talk = Talk(make(PEOPLE, allow=("alice brown",), kinds=("PERSON",)))
        talk.send(user("Alice Brown, John Roe, alice@x.org"))
        assert talk.seen.startswith("Alice Brown, PERSON_")
        assert talk.seen.endswith("alice@x.org")
