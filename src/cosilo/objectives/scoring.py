"""Runs attacks on a recorded run: what each is asked, and which of its guesses are right.

Targets hold the attacker's background knowledge and never the answers. Their ids are the example's
id, "#" and what is asked, so that a measure can tell whose they are.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from cosilo.attacks.base import Attack, Guess, Target, View, attacks
from cosilo.boundary.record.ledger import Entry
from cosilo.models.base import Embedder, TextModel
from cosilo.objectives.base import Floats, Run
from cosilo.objectives.reading import reading
from cosilo.tasks.base import Example
from cosilo.types import last_user

FOLDS = 5

MOST_MEMBERS = 500
"""Texts of either kind that a membership attack is asked about."""
HIDDEN = "lm#hidden"
"""The target that asks for the width of the LM's last hidden state."""
TRAINED_WORDS = "updates#words"
"""The target that asks for the words that an owner's updates were made of."""

_WORD = re.compile(r"[^\W\d_]+")

Entries = Callable[[], Iterator[Entry]]

Made = tuple[tuple[Guess, ...], tuple[Guess, ...]]
"""What an attack guessed with the record, and without it."""


async def attacked(
    run: Run,
    *,
    names: Sequence[str] | None = None,
    seed: int = 0,
    model: Callable[[], TextModel] | None = None,
    embedder: Embedder | None = None,
    published: object | None = None,
    untrained: object | None = None,
    known: Mapping[str, Made] | None = None,
) -> Run:
    """`run` with the guesses of every attack in `names` (all that are registered when None), with
    the record and without it.

    Each of several other sides attacks with its own record, and all of them together with everything.

    Args:
        model: opens the public model that owners of a federation train.
        known: guesses made before, by attack; those attacks are not made again. Those of one of several
            other sides stand under `attack@side`.
        published: the trained small model, where its owner gives it away; without it, attacks on it
            are left out; so are attacks on a federation's updates where none were given.
        untrained: what it was trained from, where that is known: an attack's success on it is what the
            division of the data gives away by itself.

    Where the ledger kept digests only there is nothing to attack: the run comes back as it was. Where
    token ids or states went up, only attacks that need no texts are made.

    Raises:
        ConfigError: an unknown attack, or one that needs a package that is not installed.
    """
    if not reading(run).has_content:
        return run
    sides = {}
    for name, side in run.sides.items():
        end = f"@{name}"
        own = {k.removesuffix(end): v for k, v in (known or {}).items() if k.endswith(end)}
        sides[name] = await attacked(
            side,
            names=names,
            seed=seed,
            model=model,
            embedder=embedder,
            published=published,
            untrained=untrained,
            known=own,
        )
    record = View(run.entries, embedder=embedder, public=run.public)
    whole = reading(run).everything  # the LM is the same while preparing
    nothing = replace(record, entries=lambda: iter(()))
    views = {
        "model": replace(record, entries=whole),
        "members": replace(record, entries=run.prepare),
        "updates": replace(record, entries=run.prepare, model=model),
        "published": replace(nothing, published=published, untrained=untrained),
    }
    before = {"published": replace(nothing, published=untrained, untrained=untrained)}
    guesses, priors = {}, {}
    for name in attacks.names() if names is None else names:
        if known and name in known:
            guesses[name], priors[name] = known[name]
            continue
        attack = attacks.create(name)
        if attack.about == "published" and published is None:
            continue
        if attack.about == "updates" and not reading(run).contributed:
            continue
        read = attack.about in ("model", "published", "updates") or reading(run).has_texts
        if not read and not (run.public and getattr(attack, "reads_public", False)):
            continue
        if attack.about == "replies":
            guesses[name] = await _held_out(attack, run, record, seed)
            asked = reply_targets(run)
        else:
            asked = _TARGETS[attack.about](run)
            view = views.get(attack.about, record)
            guesses[name] = tuple(await attack.guess(view, asked))
        prior = before.get(attack.about, nothing)
        priors[name] = tuple(await attack.guess(prior, asked))
    return replace(run, guesses=guesses, priors=priors, sides=sides)


def attack_of(name: str) -> str:
    """The attack whose guesses stand under `name`: its own, or `attack@side`."""
    return name.partition("@")[0]


def made(run: Run) -> dict[str, Made]:
    """What was guessed on `run`, by attack; by one of several other sides under `attack@side`."""
    found = {name: (guesses, run.priors[name]) for name, guesses in run.guesses.items()}
    for name, side in run.sides.items():
        found |= {f"{attack}@{name}": each for attack, each in made(side).items()}
    return found


def secret_targets(run: Run) -> list[Target]:
    """Every item's secrets. The attacker knows all values of a kind, and how common each is."""
    pools: dict[str, list[str]] = {}
    for example in (*(item.example for item in run.items), *run.background):
        for secret in example.secrets:
            pools.setdefault(secret.kind, []).append(secret.value)
    candidates = {kind: tuple(sorted(values)) for kind, values in pools.items()}
    return [
        Target(f"{item.example.id}#{i}", item.example.id, f"secret:{s.kind}", candidates[s.kind])
        for item in run.items
        for i, s in enumerate(item.example.secrets)
    ]


def record_targets(run: Run) -> list[Target]:
    """Which item each message came from. The attacker holds every item's original text."""
    texts = tuple(sorted(last_user(item.example.chat) for item in run.items))
    return [Target(f"{i.example.id}#record", i.example.id, "record", texts) for i in run.items]


def reply_targets(run: Run) -> list[Target]:
    """What the LM answered to each request, those of `prepare` among them: a strategy that had a
    pool labelled and then asks nothing has exposed the LM all the same."""
    return [Target(f"{r}#reply", r, "reply", run.labels) for r in reading(run).replies]


def model_targets(run: Run) -> list[Target]:
    """One question about the LM itself: how wide its hidden state is.

    The run does not hold the true width, so the guess is not scored as right or wrong; its value is
    reported as it is.
    """
    return [Target(HIDDEN, "", "hidden size")]


def update_targets(run: Run) -> list[Target]:
    """Which words the owner trained on. The attacker holds the items' texts, which are of the same
    kind: their words are the candidates, the most common first."""
    counts = Counter(w for item in run.items for w in words_of(last_user(item.example.chat)))
    return [Target(TRAINED_WORDS, "", "word", tuple(w for w, _ in counts.most_common()))]


def words_of(text: str) -> list[str]:
    """The words of letters in `text`, case folded."""
    return [word.casefold() for word in _WORD.findall(text)]


def trained_words(run: Run) -> frozenset[str]:
    """The words of the texts that preparing was given to learn from."""
    known = [e for e in run.background if e.id in run.members]
    return frozenset(w for e in known for w in words_of(last_user(e.chat)))


def member_targets(run: Run) -> list[Target]:
    """Texts with their labels: some that preparing made its messages of, and the items, which it
    cannot have seen. At most `MOST_MEMBERS` of each."""
    return _members_and_others(run, members_of(run))


def members_of(run: Run) -> frozenset[str]:
    """Ids of the records in messages sent while preparing. Where none stood in one, records may have
    decided what else was sent (by their votes, say): then those that preparing was given to learn from.

    The others of the training split would make it look as if less could be told.
    """
    return reading(run).records or run.members


def published_targets(run: Run) -> list[Target]:
    """Texts with their labels, for attacks on the published model: some that it learned from, and
    the items, which it cannot have seen.

    Where it was given none of the owner's texts (only synthetic ones, say), those that its training
    texts were made with count as learned from.
    """
    return _members_and_others(run, learned_by(run))


def learned_by(run: Run) -> frozenset[str]:
    """Ids of the examples that the published model learned from: directly, or else through the
    texts it was given.
    """
    return run.learned or members_of(run)


def _members_and_others(run: Run, members: frozenset[str]) -> list[Target]:
    known = [e for e in run.background if e.id in members]
    asked = some(known) + some([item.example for item in run.items])
    return [Target(f"{e.id}#member", "", "member", chat=e.chat, label=e.target) for e in asked]


def some(examples: Sequence[Example]) -> list[Example]:
    """At most `MOST_MEMBERS` of them, which ones their ids' hashes say."""
    return sorted(examples, key=lambda e: hashlib.sha256(e.id.encode()).digest())[:MOST_MEMBERS]


_TARGETS = {
    "secrets": secret_targets,
    "records": record_targets,
    "model": model_targets,
    "members": member_targets,
    "updates": update_targets,
    "published": published_targets,
}


async def _held_out(attack: Attack, run: Run, record: View, seed: int) -> tuple[Guess, ...]:
    """Guesses by cross-validation: the reply to each target is hidden while it is asked for."""
    targets = reply_targets(run)
    shuffled = sorted(targets, key=lambda t: hashlib.sha256(f"{seed}/{t.id}".encode()).digest())
    folds = min(FOLDS, len(targets))
    guesses: dict[str, Guess] = {}
    for fold in range(folds):
        asked = shuffled[fold::folds]
        everything = reading(run).everything
        view = replace(record, entries=_without_replies(everything, {t.request for t in asked}))
        guesses |= {guess.target: guess for guess in await attack.guess(view, asked)}
    return tuple(guesses[target.id] for target in targets)


def _without_replies(entries: Entries, hidden: set[str]) -> Entries:
    return lambda: (e for e in entries() if e.direction == "up" or e.request not in hidden)


def secrets_right(run: Run, guesses: Sequence[Guess]) -> list[Floats] | None:
    """Per item with secrets: which of them the guesses name, shape (secrets,), 1 or 0.

    The order of guesses among secrets of one kind does not matter: both of an item's names count as
    found either way round. None when the guesses are not about secrets.
    """
    answers = {guess.target: guess.value for guess in guesses}
    found = []
    for item in run.items:
        secrets = item.example.secrets
        if not secrets:
            continue
        ids = [f"{item.example.id}#{i}" for i in range(len(secrets))]
        if any(id not in answers for id in ids):
            return None
        said: dict[str, set[str]] = {}
        for id, secret in zip(ids, secrets, strict=True):
            said.setdefault(secret.kind, set()).add(answers[id])
        found.append(np.array([float(s.value in said[s.kind]) for s in secrets]))
    return found


def records_right(run: Run, guesses: Sequence[Guess]) -> Floats | None:
    """Per item, 1 when its message was matched to its own text; None when it was not asked."""
    answers = {guess.target: guess.value for guess in guesses}
    ids = [f"{item.example.id}#record" for item in run.items]
    if not ids or any(id not in answers for id in ids):
        return None
    return np.array(
        [
            float(answers[id] == last_user(item.example.chat))
            for id, item in zip(ids, run.items, strict=True)
        ]
    )


def replies_right(
    run: Run, guesses: Sequence[Guess], agree: Callable[[str, str], float]
) -> Floats | None:
    """Per request the LM answered: how far the guess agrees with what the LM did reply."""
    answers = {guess.target: guess.value for guess in guesses}
    pairs = [
        (reply, answers[f"{request}#reply"])
        for request, reply in reading(run).replies.items()
        if f"{request}#reply" in answers
    ]
    return np.array([agree(*pair) for pair in pairs]) if pairs else None


def member_scores(
    run: Run, guesses: Sequence[Guess], *, about: str = "members"
) -> tuple[Floats, Floats] | None:
    """The scores given to texts that were learned from, and to those that were not; None when the
    guesses are about something else."""
    scores = {guess.target: guess.score for guess in guesses}
    found = [t.id for t in _TARGETS[about](run) if t.id in scores]
    others = {f"{item.example.id}#member" for item in run.items}
    known = set(found) - others
    inside = np.array([scores[id] for id in found if id in known])
    outside = np.array([scores[id] for id in found if id not in known])
    return (inside, outside) if len(inside) and len(outside) else None


def with_secrets(examples: Sequence[Example]) -> list[int]:
    """The positions of the examples that have secrets."""
    return [i for i, example in enumerate(examples) if example.secrets]
