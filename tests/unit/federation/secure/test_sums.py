"""The sum comes out to the bit, whoever drops out, and nothing else; no mask serves two contents."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from msgspec.structs import replace
from scipy import stats

from cosilo.attacks.updates import pursue
from cosilo.errors import PrivacyError
from cosilo.federation.secure import coordinator, owner
from cosilo.federation.secure.fixed_point import FixedPoint, mean_of_sum, weighted
from cosilo.federation.secure.sums import Unmasking
from cosilo.federation.updates import flat, shaped
from summing import Summing, kept, seed_of, summing

NAMES = [f"owner {i:03}" for i in range(5)]


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("owners", [2, 3, 8])
def test_the_sum_is_exact(owners: int, bits: int) -> None:
    one = summing(owners, bits=bits)
    one.share()
    one.mask()
    np.testing.assert_array_equal(one.total(), one.expected())
    assert one.expected().dtype == (np.uint32 if bits == 32 else np.uint64)


@pytest.mark.parametrize("before_sharing", [0, 1, 2])
@pytest.mark.parametrize("before_masking", [0, 1, 2])
@pytest.mark.parametrize("before_answering", [0, 1, 2])
def test_who_drops_out_when_changes_the_sum_by_their_vectors_alone(
    before_sharing: int, before_masking: int, before_answering: int
) -> None:
    one = summing(7, threshold=4)
    names = sorted(one.words)
    left = 7 - before_sharing - before_masking - before_answering
    one.share(without=names[:before_sharing])
    one.mask(without=names[before_sharing : before_sharing + before_masking])
    gone = names[7 - before_answering :]
    if left >= 4:
        np.testing.assert_array_equal(one.total(without=gone), one.expected())
        assert len(one.vectors) == 7 - before_sharing - before_masking
    else:
        with pytest.raises((ValueError, PrivacyError), match="4 are needed"):
            one.total(without=gone)


def test_below_the_threshold_no_owner_answers() -> None:
    one = summing(5, threshold=4)
    one.share()
    one.mask(without=NAMES[:2])
    with pytest.raises(PrivacyError, match="3 owners are left, and 4 are needed; nothing was sent"):
        one.answer(NAMES[4])
    few = summing(5, threshold=4)
    few.share(without=NAMES[:2])
    with pytest.raises(PrivacyError, match="3 owners shared, and 4 are needed"):
        few.mask()
    vectors = dict.fromkeys(NAMES[:3], b"")
    with pytest.raises(ValueError, match="3 of 5 owners are left, and 4"):
        coordinator.total(one.roster, one.sharers, vectors, {}, one.encoding)


def test_what_the_coordinator_gets_is_uniform() -> None:
    # One fixed content in many sums: nothing of it shows in any byte of what is sent.
    one = summing(3, size=20_000)
    constant = one.encoding.encoded(np.full(20_000, 1.0))
    one.words = dict.fromkeys(one.words, constant)
    one.__post_init__()
    one.share()
    one.mask()
    for name, vector in one.vectors.items():
        counts = np.bincount(np.frombuffer(vector, np.uint8), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-3
        words = np.frombuffer(vector, "<u4")
        by_byte = words.view(np.uint8).reshape(-1, 4)
        for byte in range(4):
            counts = np.bincount(by_byte[:, byte], minlength=256)
            assert stats.chisquare(counts).pvalue > 1e-4
        assert not (words == constant).any()
        for other in one.vectors:
            if other != name:
                difference = words - np.frombuffer(one.vectors[other], "<u4")
                counts = np.bincount(difference.view(np.uint8), minlength=256)
                assert stats.chisquare(counts).pvalue > 1e-3
    plain = np.bincount(constant.view(np.uint8), minlength=256)
    assert stats.chisquare(plain).pvalue < 1e-9  # what the test would say of no mask


def test_a_pursuit_finds_every_token_in_a_sum_and_none_in_what_an_owner_sends() -> None:
    """The sum is not private; of one owner the coordinator has nothing."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(300, 96)).astype(np.float32)
    tokens = {name: rng.choice(300, 3, replace=False).tolist() for name in NAMES}
    encoding = FixedPoint(len(NAMES), 8.0)

    def found(vector: bytes, count: int) -> set[int]:
        numbers = encoding.decoded(np.frombuffer(vector, encoding.sent))
        return set(pursue(numbers.reshape(8, 96).astype(np.float32), inputs, count=count).tokens)

    rows = {n: 0.05 * rng.normal(size=(8, 3)) @ inputs[read] for n, read in tokens.items()}
    words = {n: encoding.encoded(r.ravel()) for n, r in rows.items()}
    one = Summing(words, encoding, threshold=3)
    one.share()
    one.mask(without=NAMES[:2])
    bare = {n: found(w.astype(encoding.sent).tobytes(), 3) for n, w in words.items()}
    assert bare == {n: set(read) for n, read in tokens.items()}
    sent = [len(found(one.vectors[n], 3) & set(tokens[n])) for n in NAMES[2:]]
    assert sum(sent) <= 1, "of nine tokens, three guessed of three hundred each time"
    total = one.total()
    of_all = {token for n in NAMES[2:] for token in tokens[n]}
    assert found(total.astype(encoding.sent).tobytes(), len(of_all)) == of_all


def test_all_but_one_owner_together_still_lack_its_own_mask() -> None:
    # The common masks of owner 0 are known to the others; what is left over them is still uniform.
    one = summing(3, size=20_000)
    one.share()
    one.mask()
    state = one.states[NAMES[0]]
    mask, _, own = owner._secrets(state)
    bound = owner.context(one.roster, one.sharers)
    words = np.frombuffer(one.vectors[NAMES[0]], "<u4").copy()
    for advert in one.roster.adverts[1:]:
        key = owner.common(mask, advert.mask_key, bound)
        owner.keys.add_stream(words, key, one.encoding, sign=-1)
    counts = np.bincount(words.view(np.uint8), minlength=256)
    assert stats.chisquare(counts).pvalue > 1e-3
    owner.keys.add_stream(words, owner.keys.derived(own, b"own", bound), one.encoding, sign=-1)
    np.testing.assert_array_equal(words, one.words[NAMES[0]])


# ── one mask, one content ────────────────────────────────────────────────────


def mask_of(one: Summing, name: str) -> np.ndarray:
    return np.frombuffer(one.vectors[name], "<u4") - one.words[name]


def test_an_owner_that_was_killed_sends_the_same_bytes() -> None:
    one = summing(4)
    name = NAMES[1]
    again = owner.begun(one.session, name, one.words[name], seed=seed_of(name))
    assert owner.advertised(kept(one.states[name])) == owner.advertised(again)
    one.share()
    assert owner.joined(one.states[name], one.roster) == (one.states[name], one.sealed[name])
    one.mask()
    for _ in range(2):
        state, vector = owner.masked(
            one.states[name], one.roster, one.sharers, one.words[name], one.encoding
        )
        assert (state, vector) == (one.states[name], one.vectors[name])
    assert one.answer(name) == one.answer(name)
    # A state as it was before the last step was recorded leads to the same bytes, too.
    early = replace(one.states[name], sharers=b"", survivors=b"")
    assert owner.masked(early, one.roster, one.sharers, one.words[name], one.encoding)[1] == vector


def test_another_content_is_refused_by_the_state_that_committed_to_one() -> None:
    one = summing(4)
    one.share()
    other = one.words[NAMES[0]].copy()
    other[0] += 1
    with pytest.raises(PrivacyError, match="is not used for two; nothing was sent"):
        owner.masked(one.states[NAMES[0]], one.roster, one.sharers, other, one.encoding)


def test_a_copied_seed_masks_another_content_otherwise() -> None:
    # An old state restored, a copied disk: the seed is the same, the content is not.
    masks = []
    for change in (0, 1):
        one = summing(4, size=2_000)
        words = dict(one.words)
        words[NAMES[0]] = words[NAMES[0]] + np.uint32(change)
        one = Summing(words, one.encoding, one.threshold)
        one.share()
        one.mask()
        masks.append({name: mask_of(one, name) for name in one.vectors})
    for name in masks[0]:  # those of the others, too: they had a mask in common with it
        assert (masks[0][name] == masks[1][name]).mean() < 0.01
        counts = np.bincount((masks[0][name] - masks[1][name]).view(np.uint8), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-3


def test_other_rounds_rosters_and_sharers_have_other_masks() -> None:
    def masks(
        session: str = "1", without: tuple[str, ...] = (), threshold: int = 3, owners: int = 4
    ) -> np.ndarray:
        one = summing(4, size=500)
        words = dict(list(one.words.items())[:owners])
        one = Summing(words, one.encoding, threshold, session=session)
        one.share(without=without)
        one.mask()
        return mask_of(one, NAMES[0])

    found = [
        masks(), masks(session="2"), masks(without=(NAMES[3],)), masks(threshold=4), masks(owners=3)
    ]  # fmt: skip
    for one, other in itertools.combinations(found, 2):
        assert (one == other).mean() < 0.02


def test_an_owner_answers_for_one_roster_and_one_set_of_owners() -> None:
    one = summing(5, threshold=3)
    one.share()
    name = NAMES[0]
    joined = one.states[name]
    adverts = [advert for advert in one.roster.adverts if advert.owner != NAMES[4]]
    other = coordinator.roster_of(one.session, adverts, threshold=3, size=50)
    with pytest.raises(PrivacyError, match="for another roster before"):
        owner.joined(joined, other)
    with pytest.raises(PrivacyError, match="has not joined this roster"):
        owner.masked(joined, other, NAMES[:4], one.words[name], one.encoding)
    one.mask(without=[NAMES[4]])
    with pytest.raises(PrivacyError, match="for another owners who shared before"):
        owner.masked(one.states[name], one.roster, NAMES[:4], one.words[name], one.encoding)
    one.answer(name)
    with pytest.raises(PrivacyError, match="for another owners left before"):
        one.answer(name, NAMES[:3])
    with pytest.raises(PrivacyError, match="masked nothing for these"):
        owner.unmasked(joined, one.roster, NAMES, NAMES[:4], {})


def test_no_owner_gives_both_shares_of_another() -> None:
    one = summing(5, threshold=3)
    one.share()
    one.mask(without=[NAMES[4]])
    found = one.answer(NAMES[0])
    assert {o for o, _ in found.own} == set(NAMES[:4])
    assert {o for o, _ in found.keys} == {NAMES[4]}


# ── who does not keep to it ──────────────────────────────────────────────────


def test_sums_are_of_the_session_and_the_owner_that_they_say() -> None:
    one = summing(3)
    one.share()
    other = owner.begun("another sum", NAMES[0], one.words[NAMES[0]], seed=seed_of(NAMES[0]))
    with pytest.raises(PrivacyError, match="the roster is of another sum"):
        owner.joined(other, one.roster)
    changed = replace(one.roster.adverts[0], mask_key=bytes(range(32)))
    roster = replace(one.roster, adverts=(changed, *one.roster.adverts[1:]))
    with pytest.raises(PrivacyError, match="other keys or content"):
        owner.joined(replace(one.states[NAMES[0]], roster=b""), roster)


@pytest.mark.parametrize("threshold", [0, 1, 2, 5])
def test_a_threshold_is_above_half(threshold: int) -> None:
    one = summing(4)
    adverts = [owner.advertised(state) for state in one.states.values()]
    with pytest.raises(ValueError, match="is not above half of 4 owners"):
        coordinator.roster_of("x", adverts, threshold=threshold, size=1)
    one.share()
    with pytest.raises(PrivacyError, match="not above half"):
        owner.joined(one.states[NAMES[0]], replace(one.roster, threshold=threshold))


def test_rosters_have_each_owner_and_each_key_once() -> None:
    one = summing(3)
    first, second, third = (owner.advertised(state) for state in one.states.values())
    for wrong, said in (
        ([first], "two owners or more"),
        ([first, first, second], "each once"),
        ([first, second, replace(third, mask_key=first.mask_key)], "two keys"),
    ):
        with pytest.raises(ValueError, match=said):
            coordinator.roster_of("x", wrong, threshold=2, size=1)


def test_a_key_that_is_none_is_found_before_a_roster_is_made() -> None:
    one = summing(3)
    good = owner.advertised(one.states[NAMES[0]])
    assert coordinator.advert_flaw(good) == ""
    assert "none" in coordinator.advert_flaw(replace(good, share_key=bytes(32)))


def test_shares_that_were_changed_on_the_way_are_left_out() -> None:
    one = summing(5, threshold=3)
    one.share()
    one.mask(without=[NAMES[4]])
    one.sealed[NAMES[1]][NAMES[0]] = bytes(148)
    del one.sealed[NAMES[2]][NAMES[0]]
    one.received = lambda name: {  # type: ignore[method-assign]
        other: one.sealed[other].get(name, b"") for other in one.sharers if other != name
    }
    np.testing.assert_array_equal(one.total(), one.expected())


def test_wrong_shares_and_wrong_sizes_are_named() -> None:
    one = summing(4, threshold=3)
    one.share()
    one.mask(without=[NAMES[3]])
    answers = {name: one.answer(name) for name in one.vectors}

    def lied(kind: str) -> dict[str, Unmasking]:
        first = answers[NAMES[0]]
        wrong = tuple((o, bytes(66)) for o, _ in getattr(first, kind))
        return answers | {NAMES[0]: replace(first, **{kind: wrong})}

    def total(vectors: dict[str, bytes], given: dict[str, Unmasking]) -> object:
        return coordinator.total(one.roster, one.sharers, vectors, given, one.encoding)

    with pytest.raises(ValueError, match="give another secret than it advertised"):
        total(one.vectors, lied("own"))
    with pytest.raises(ValueError, match="of 'owner 003' give another secret"):
        total(one.vectors, lied("keys"))
    # With one answer more than are needed, the wrong one is found and left out.
    more = summing(5, threshold=3)
    more.share()
    more.mask(without=[NAMES[4]])
    given = {name: more.answer(name) for name in more.vectors}
    for kind in ("own", "keys"):
        for liar in more.vectors:
            shares = tuple((o, bytes(66)) for o, _ in getattr(given[liar], kind))
            lied_to = given | {liar: replace(given[liar], **{kind: shares})}
            np.testing.assert_array_equal(
                coordinator.total(more.roster, more.sharers, more.vectors, lied_to, more.encoding),
                more.expected(),
            )
    with pytest.raises(ValueError, match="'owner 000' sent 199 bytes for 200"):
        total(one.vectors | {NAMES[0]: one.vectors[NAMES[0]][1:]}, answers)
    with pytest.raises(ValueError, match="are left"):
        total(one.vectors | {"a stranger": one.vectors[NAMES[0]]}, answers)
    small = FixedPoint(2, 4.0)
    with pytest.raises(ValueError, match="no room for 3"):
        coordinator.total(one.roster, one.sharers, one.vectors, answers, small)
    fresh = replace(one.states[NAMES[0]], sharers=b"", survivors=b"")
    with pytest.raises(PrivacyError, match="do not fit the encoding"):
        owner.masked(fresh, one.roster, one.sharers, one.words[NAMES[0]], small)


def test_a_state_is_shown_without_its_seed() -> None:
    (state, *_) = summing(4).states.values()
    assert repr(state) == "OwnerState(session='a federation, round 1', owner='owner 000')"
    assert f"{state}" == repr(state)


def test_a_weighted_mean_of_updates_comes_out_of_a_sum() -> None:
    rng = np.random.default_rng(3)
    shapes = {"b": (3, 2), "a": (5,)}
    updates = [
        {name: rng.uniform(-1, 1, shape).astype(np.float32) for name, shape in shapes.items()}
        for _ in range(4)
    ]
    weights = [1.0, 0.25, 0.5, 0.1]
    encoding = FixedPoint(4, 1.0)
    words = {
        NAMES[i]: encoding.encoded(weighted(flat(update), w))
        for i, (update, w) in enumerate(zip(updates, weights, strict=True))
    }
    one = Summing(words, encoding, 3)
    one.share()
    one.mask()
    found = shaped(mean_of_sum(encoding.decoded(one.total())), shapes)
    for name in shapes:
        mean = sum(w * u[name] for w, u in zip(weights, updates, strict=True)) / sum(weights)
        np.testing.assert_allclose(found[name], mean, atol=1e-7)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: weighted(np.ones(1), 0.0),
        lambda: weighted(np.ones(1), 1.1),
        lambda: mean_of_sum(np.ones(1)),
        lambda: mean_of_sum(np.zeros(4)),
    ],
)
def test_what_is_no_weighted_sum_is_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="weight"):
        wrong()
