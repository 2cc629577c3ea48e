"""Ways to ask without showing what is private: what the small model is told, and what is asked.

    question   a question without the private facts                            PAPILLON
    describe   the kind of problem, in general words                           Hartmann et al.
    similar    the same of made-up people, several times                       Hartmann et al.
    replace    the text, with other names for whatever is private in it        Hartmann et al.
    hide       the question among others that nobody has                       ConfusionPrompt

Siyan et al., "PAPILLON" (arXiv 2410.17127); Hartmann et al., "Can LLMs get help from other LLMs without
revealing private information?" (arXiv 2404.01041); Mai et al., "ConfusionPrompt" (arXiv 2401.00870).
The words are our own.
"""

from __future__ import annotations

from typing import Literal, get_args

from cosilo.types import Chat, Turn, user

Way = Literal["question", "describe", "similar", "replace", "hide"]
WAYS: tuple[Way, ...] = get_args(Way)

_QUESTION = (
    "Rewrite the request below as one that a stranger may read. Leave out every name, place, company, "
    "number and other private detail, or say 'someone', 'a company', 'a city' instead. Write only the "
    "new request.",
    "Which general question should be asked of an expert who may know nothing about the people in this "
    "request? Write that question in one or two sentences, without names and numbers.",
    "Ask for the same thing in general words. No names, no numbers, nothing about anybody. Write only "
    "the question.",
)
INSTRUCTIONS: dict[Way, tuple[str, ...]] = {
    "question": _QUESTION,
    "hide": _QUESTION,
    "describe": (
        "Describe in general terms what kind of text or answer is wanted below, and for what kind of "
        "situation. Two or three sentences. Name nobody, no place, no company and no number.",
        "What kind of problem is this? Explain it to somebody who must not know whom it is about. No "
        "names, no numbers.",
        "Say in one sentence what sort of help is needed below, without any private detail.",
    ),
    "similar": (
        "Make up {count} requests of the same kind as the one below, by other people, with other "
        "names, places and details. Each on a line of its own.",
        "Write {count} examples of what a different person might ask for in a similar situation, one a "
        "line. Invent all names and details; take none from below.",
        "Below is a request. Write {count} different ones that need the same kind of answer, one a "
        "line.",
    ),
    "replace": (
        "List every name of a person, place, company or product, every number and every other private "
        "detail in the text below, each on a line of its own, exactly as it is written there. Only the "
        "list.",
        "Which words in the text below tell who, where or when? One a line, copied exactly.",
        "Copy out the names and numbers in the text below, one a line.",
    ),
}
"""What the small model may be told, by way; the first unless another was found better."""

DECOYS = (
    "Here is a question:\n\n{question}\n\nWrite {count} other questions, about as long, that somebody "
    "else might ask about other things. Each on a line of its own."
)
_ASKED = {
    "describe": "{text}\n\nWrite what would help there: an example, or how it is best done.",
}
_NOTE = (
    "(Somebody who does not know the details {what}:\n\n{said}\n\nUse what helps, and answer the "
    "request above with its own details.)"
)


def to_write(instruction: str, original: str, *, shown: tuple[Turn, ...] = (), count: int) -> Chat:
    """What the small model is told: the instruction, worked examples, and the original."""
    told = instruction.replace("{count}", str(count))
    examples: list[Turn] = []
    for turn in shown:
        asked = turn.role == "user"
        examples.append(Turn("user", _on(told, turn.content)) if asked else turn)
    return (*examples, Turn("user", _on(told, original)))


def to_write_decoys(question: str, count: int) -> Chat:
    return user(DECOYS.format(question=question, count=count))


def asked(way: Way, text: str) -> Chat:
    """What the LM is asked about one written text."""
    return user(_ASKED.get(way, "{text}").replace("{text}", text))


def note(way: Way, texts: tuple[str, ...], replies: tuple[str, ...]) -> str:
    """What the small model is told of the LM's `replies` when it answers."""
    if way == "similar":
        pairs = zip(texts, replies, strict=True)
        said = "\n\n".join(f"Request: {t}\nAnswer: {r}" for t, r in pairs)
        return _NOTE.format(what="answered similar requests like this", said=said)
    return _NOTE.format(what="was asked in general and says", said="\n\n".join(replies))


def _on(instruction: str, text: str) -> str:
    return f"{instruction}\n\n{text}"
