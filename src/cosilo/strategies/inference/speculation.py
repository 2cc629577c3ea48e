"""Whether drafting at home pays, said before anything is drafted.

    the LM alone:   RTT + prompt + n · t_v
    with drafts:    prompt + n / τ · (RTT + d · t_d + t_V(d))        τ = 1 + s₁ + s₂ + … + s_γ

Of each draft of up to γ tokens, d on average, the LM keeps the first k with probability s_k; where
every token is kept with the same probability α, s_k = α^k and τ = (1 − α^(γ+1)) / (1 − α), as in
Leviathan et al. (arXiv 2211.17192). That the gain ends where the round trip is longer than what a round
saves, and what the LM's owner has of it (1 + γ · t_d / t_v) beside drafting at the owner's, is
"Speculation at a distance" (arXiv 2606.25091).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

from cosilo.strategies.rounds import DraftedStep
from cosilo.types import Generation


def constant(alpha: float, length: int) -> tuple[float, ...]:
    """The probabilities that 1, 2, … `length` tokens of a draft are kept, each alone with `alpha`."""
    return tuple(alpha**k for k in range(1, length + 1))


def kept(accepted: Sequence[int], length: int) -> tuple[float, ...]:
    """The share of drafts of which 1, 2, … `length` tokens were kept; a draft that was shorter, or that
    there was none, is one of which no more was."""
    return tuple(fmean(a >= k for a in accepted) for k in range(1, length + 1))


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """What the two sides and the road between them take.

    Attributes:
        survival: the probabilities that 1, 2, … tokens of a draft are kept.
        drafted: the tokens of a draft of up to so many, on average, from a length of 1 on.
        draft_s: seconds for one drafted token.
        token_s: seconds of the LM for one token that it writes alone.
        more_s: further seconds of the LM for each drafted token that it reads in the same go.
        round_trip_s: seconds that a crossing takes beside the LM's.
        prompt_s: seconds of the LM until the first token.
        usd_token, usd_crossing, usd_drafted: dollars for a token that the LM writes alone, for a
            crossing (what the thread holds is read again, from memory), for a drafted token in it.
    """

    survival: tuple[float, ...]
    drafted: tuple[float, ...]
    draft_s: float
    token_s: float
    more_s: float = 0.0
    round_trip_s: float = 0.0
    prompt_s: float = 0.0
    usd_token: float = 0.0
    usd_crossing: float = 0.0
    usd_drafted: float = 0.0

    def __post_init__(self) -> None:
        if len(self.survival) != len(self.drafted) or not self.survival:
            raise ValueError("survival and drafted must be of the same lengths, from 1 on")


@dataclass(frozen=True, kw_only=True)
class Payoff:
    """What drafts of up to `length` tokens are expected to bring, beside the LM alone.

    Attributes:
        tokens_per_crossing: tokens of the reply for each message to the LM.
        gain: how many times as fast a reply comes.
        break_even_s: the round trip at which it comes as fast as from the LM alone; below 0 where it
            never does.
        owner_gain: how many times as many tokens the LM's owner can serve in the same time.
        apart_gain: the same, beside an owner who drafts with the same small model itself.
        usd: how many times as much it costs; 1 where nothing has a price.
    """

    length: int
    tokens_per_crossing: float
    gain: float
    break_even_s: float
    owner_gain: float
    apart_gain: float
    usd: float

    @property
    def pays(self) -> bool:
        return self.gain > 1


def payoff(speeds: Speeds, length: int, tokens: float = 256.0) -> Payoff:
    """What drafts of up to `length` tokens bring in replies of so many tokens.

    Raises:
        ValueError: `speeds` knows nothing of drafts that long.
    """
    if not 1 <= length <= len(speeds.survival):
        raise ValueError(f"length = {length!r} is not between 1 and {len(speeds.survival)}")
    each = 1 + sum(speeds.survival[:length])
    drafted = speeds.drafted[length - 1]
    verify_s = speeds.token_s + drafted * speeds.more_s
    round_s = speeds.round_trip_s + drafted * speeds.draft_s + verify_s
    crossings = max(1.0, tokens / each)
    alone_s = speeds.round_trip_s + speeds.prompt_s + tokens * speeds.token_s
    usd = speeds.usd_crossing + drafted * speeds.usd_drafted
    return Payoff(
        length=length,
        tokens_per_crossing=each,
        gain=alone_s / max(1e-12, speeds.prompt_s + crossings * round_s),
        break_even_s=(tokens * speeds.token_s - crossings * (round_s - speeds.round_trip_s))
        / max(1e-12, crossings - 1),
        owner_gain=each * speeds.token_s / max(1e-12, verify_s),
        apart_gain=1 + drafted * speeds.draft_s / max(1e-12, verify_s),
        usd=usd / each / speeds.usd_token if speeds.usd_token else 1.0,
    )


def best(speeds: Speeds, tokens: float = 256.0) -> Payoff:
    """The length of drafts at which replies of so many tokens come fastest."""
    return max(
        (payoff(speeds, n, tokens) for n in range(1, len(speeds.survival) + 1)),
        key=lambda p: p.gain,
    )


def at(speeds: Speeds, *, round_trip_s: float) -> Speeds:
    """The same over another road."""
    return replace(speeds, round_trip_s=round_trip_s)


def speeds_of(
    alone: Sequence[Generation],
    rounds: Sequence[Sequence[DraftedStep]],
    length: int,
    usd: Mapping[str, float] | None = None,
    round_trip_s: float | None = None,
) -> tuple[Speeds, float]:
    """What was measured of replies that the LM wrote alone, and of the same with drafts of up to
    `length` tokens; and the tokens of a reply.

    Args:
        usd: what each of the two cost, "alone" and "drafted".
        round_trip_s: where it is known; else what crossings took beside the LM.
    """
    every = [each for reply in rounds for each in reply]
    later = [each for reply in rounds for each in reply[1:]] or every
    tokens = sum(reply[-1].reply.at for reply in rounds)
    drafted = sum(each.reply.drafted for each in every)
    took, read = fmean(r.reply.took for r in later), fmean(r.reply.drafted for r in later)
    prompt_s = max(0.0, fmean(reply[0].reply.took for reply in rounds) - took)
    written = sum(g.completion_tokens for g in alone)
    token_s = max(0.0, sum(g.seconds for g in alone) - len(alone) * prompt_s) / max(1, written)
    if round_trip_s is None:
        round_trip_s = max(0.0, median(r.crossing_s - r.reply.took for r in every))
    paid = dict(usd or {})
    found = Speeds(
        survival=kept([r.reply.accepted for r in every], length),
        drafted=tuple(fmean(min(n, r.reply.drafted) for r in every) for n in range(1, length + 1)),
        draft_s=sum(r.draft_s for r in every) / max(1, drafted),
        token_s=token_s,
        more_s=max(0.0, took - token_s) / max(1.0, read),
        round_trip_s=round_trip_s,
        prompt_s=prompt_s,
        usd_token=paid.get("alone", 0.0) / max(1, written),
        usd_crossing=paid.get("drafted", 0.0) / len(every),
    )
    return found, tokens / len(rounds)
