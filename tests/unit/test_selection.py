"""Limits are read strictly, points are ordered by Deb's rules, and a certificate says what it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from cosilo.errors import ConfigError
from cosilo.objectives.base import Floats, Measurement, Objective
from cosilo.selection import (
    Limit,
    Point,
    certify,
    constrained_order,
    feasible,
    lower_is_better,
    pareto_front,
    parse_limit,
    passed_over,
    violation,
)

UTILITY = Objective("utility", "utility", "max", "share")
PRIVACY = Objective("privacy", "privacy", "min", "share")
USD = Objective("usd_per_1k", "efficiency", "min", "USD per 1,000 requests", bounds=None)
LATENCY = Objective("latency_p95_ms", "efficiency", "min", "ms", bounds=None, quantile=0.95)
AT_HOME = Objective("wrong_at_home", "utility", "min", "share of answers kept", partial=True)
KNOWN = {o.name: o for o in (UTILITY, PRIVACY, USD, LATENCY, AT_HOME)}


def point(
    name: str, measured: Mapping[str, float], values: Mapping[str, Floats] | None = None
) -> Point:
    validation = {k: Measurement(KNOWN[k], v, 100, v - 0.02, v + 0.02) for k, v in measured.items()}
    return Point(name, name, name, validation=validation, certificate=values or {})


def coins(ones: int, n: int = 240) -> Floats:
    return np.array([1.0] * ones + [0.0] * (n - ones))


def test_a_limit_takes_its_direction_from_the_objective() -> None:
    limit = parse_limit("privacy=0.02", KNOWN)
    assert (limit.objective, limit.bound, limit.relative_to) == (PRIVACY, 0.02, None)
    assert limit.direction == "at most"
    relative = parse_limit(
        "utility=0.95x-cascade calls=0.4 + pseudonym",
        KNOWN,
        points=["cascade calls=0.4 + pseudonym"],
        direction="at least",
    )
    assert (relative.bound, relative.relative_to) == (0.95, "cascade calls=0.4 + pseudonym")
    assert relative.direction == "at least"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("privcy=0.02", "no objective named 'privcy'; did you mean 'privacy'?"),
        ("privacy", "is no limit"),
        ("privacy=", "is no limit"),
        ("privacy=low", "'low' is not a number"),
        ("privacy=nan", "'nan' is not a number"),
        ("utility=0.95x-lrge", "no point named 'lrge'; did you mean 'large'?"),
        ("utility=-1x-large", "must be above 0"),
        ("privacy=5", "'privacy' lies between 0 and 1; 5% is 0.05"),
        ("privacy=500%", "'privacy' lies between 0 and 1"),
        ("privacy=-0.01", "lies between 0 and 1"),
        ("utility=1.5", "lies between 0 and 1"),
        ("privacy=%", "'%' is not a number"),
        ("usd_per_1k=-1", "'usd_per_1k' cannot be below 0"),
        ("usd_per_1k=inf", "'inf' is not a number"),
        ("usd_per_1k=5%", "is no share and takes no %, but USD per 1,000 requests"),
        ("latency_p95_ms=-5", "cannot be below 0"),
    ],
)
def test_a_limit_that_cannot_be_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        parse_limit(text, KNOWN, points=["small", "large"])


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("privacy=5%", 0.05), ("privacy=5 %", 0.05), ("privacy= 0.05 ", 0.05), ("privacy=0", 0.0),
        ("privacy=100%", 1.0), ("privacy=0.5%", 0.005), ("utility=95%x-large", 0.95),
        ("usd_per_1k=1.2x-large", 1.2), ("latency_p95_ms=5000", 5000.0),
    ],
)  # fmt: skip
def test_a_share_may_be_written_as_a_percentage(text: str, bound: float) -> None:
    assert parse_limit(text, KNOWN, points=["large"]).bound == pytest.approx(bound)


def test_a_limit_given_by_the_wrong_flag_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"at most something, not at least; give it with --limit,"
    ):
        parse_limit("privacy=0.02", KNOWN, direction="at least")
    with pytest.raises(
        ConfigError, match=r"at least something, not at most; .* --at-least, or in "
    ):
        parse_limit("utility=0.5", KNOWN, direction="at most")


SMALL = point("small", {"utility": 0.7, "privacy": 0.0, "usd_per_1k": 0.0})
LARGE = point("large", {"utility": 0.9, "privacy": 0.6, "usd_per_1k": 2.0})
MIDDLE = point("cascade", {"utility": 0.88, "privacy": 0.2, "usd_per_1k": 0.7})
WORSE = point("router", {"utility": 0.86, "privacy": 0.3, "usd_per_1k": 0.9})
POINTS = [SMALL, LARGE, MIDDLE, WORSE]


def test_the_front_leaves_out_what_another_point_beats() -> None:
    assert pareto_front(POINTS, ["utility", "privacy", "usd_per_1k"]) == [SMALL, LARGE, MIDDLE]


def test_what_was_not_measured_counts_as_worst() -> None:
    values = lower_is_better([SMALL, point("new", {"utility": 0.99})], ["utility", "privacy"])
    assert values.tolist() == [[-0.7, 0.0], [-0.99, np.inf]]
    with pytest.raises(ConfigError, match="did you mean 'privacy'"):
        lower_is_better(POINTS, ["privacyy"])


def test_feasible_points_keep_every_limit() -> None:
    limits = [Limit(PRIVACY, 0.25), Limit(UTILITY, 0.95, "large")]
    assert feasible(POINTS, limits) == [MIDDLE]
    assert violation(LARGE, limits, POINTS) == pytest.approx((0.6 - 0.25) / 0.25)
    assert violation(point("new", {}), limits, POINTS) == np.inf


def test_deb_puts_feasible_points_first_then_fronts_then_small_violations() -> None:
    limits = [Limit(PRIVACY, 0.25)]
    order = constrained_order(POINTS, limits, ["utility", "privacy"])
    assert {p.name for p in order[:2]} == {"small", "cascade"}
    assert [p.name for p in order[2:]] == ["router", "large"]


def certified_pair(leaks: int = 0, n: int = 240) -> list[Point]:
    rng = np.random.default_rng(0)
    right = (rng.random(n) < 0.9).astype(np.float64)
    return [
        point("large", {"utility": 0.9, "privacy": 0.6}, {"utility": right, "privacy": coins(n, n)}),
        point("guarded", {"utility": 0.9, "privacy": 0.001, "usd_per_1k": 0.31},
              {"utility": right, "privacy": coins(leaks, n), "usd_per_1k": np.full(n, 0.31)}),
    ]  # fmt: skip


def test_a_certificate_is_a_sentence_that_says_what_was_not_certified() -> None:
    limits = [Limit(UTILITY, 0.95, "large"), Limit(PRIVACY, 0.02), Limit(USD, 0.4)]
    certificate = certify(certified_pair(), limits)
    assert certificate.certified == ("guarded",)
    assert certificate.sentence() == (
        "with 95 % confidence: guarded has utility ≥ 0.95 × large, privacy ≤ 2 % (n = 240); "
        "measured, not certified: at most $0.40 per 1,000 requests ($0.31)"
    )
    tests = {t.limit.objective.name: t for t in certificate.tested[0].limits}
    assert tests["utility"].method == "betting"
    assert tests["privacy"].method == "binomial"
    assert tests["privacy"].p == pytest.approx(0.98**240)
    assert tests["usd_per_1k"].method == "measured"


def test_a_limit_that_was_only_measured_still_keeps_a_point_out() -> None:
    certificate = certify(certified_pair(), [Limit(PRIVACY, 0.02), Limit(USD, 0.3)])
    assert certificate.chosen is None
    assert "guarded, which no number of items would certify" in certificate.sentence()
    assert "at most $0.30 per 1,000 requests is asked, $0.31 found" in certificate.sentence()


def test_a_ceiling_makes_a_cost_certifiable() -> None:
    certificate = certify(certified_pair(), [Limit(USD, 0.4)], ceilings={"usd_per_1k": 1.0})
    assert certificate.tested[0].limits[0].method == "hoeffding-bentkus"
    assert certificate.certified == ("guarded",)


def test_limits_of_which_none_can_be_certified_are_reported_as_measured() -> None:
    certificate = certify(certified_pair(), [Limit(USD, 0.4)])
    assert certificate.certified == ()
    assert certificate.sentence() == (
        "guarded, measured, not certified: at most $0.40 per 1,000 requests ($0.31)"
    )

    certificate = certify(certified_pair(), [Limit(USD, 0.2)])
    assert certificate.sentence() == (
        "no point keeps the limits as measured; the nearest is guarded: "
        "at most $0.20 per 1,000 requests is asked, $0.31 found"
    )


def test_an_objective_without_values_is_judged_as_measured() -> None:
    """Bounded, but no point has values of it: nothing can be tested."""
    points = [point("small", {"utility": 0.7, "privacy": 0.0}), point("big", {"privacy": 0.3})]
    certificate = certify(points, [Limit(PRIVACY, 0.1)])
    assert certificate.sentence() == "small, measured, not certified: privacy ≤ 10 % (0 %)"


def test_too_few_items_are_said_with_how_many_would_do() -> None:
    # 0.1 % on validation, 0 of 100 here: at a limit of 2 %, 0.98**n ≤ 0.05 needs n of about 150.
    certificate = certify(certified_pair(n=100), [Limit(PRIVACY, 0.02)])
    assert certificate.chosen is None
    assert certificate.needed is not None
    assert 149 <= certificate.needed <= 245
    assert certificate.sentence() == (
        "no point can be certified with n = 100; the nearest is guarded; about "
        f"{certificate.needed} certificate items would be needed (an estimate)"
    )


def test_bad_luck_on_the_certificate_split_asks_for_more_items() -> None:
    """1 % of 1,000 on validation, but 12 of 240 here, at a limit of 5 %: it would rather pass."""
    measured = Measurement(PRIVACY, 0.01, 1000, 0.005, 0.015)
    unlucky = Point("a", "a", "a", validation={"privacy": measured},
                    certificate={"privacy": coins(12)})  # fmt: skip
    certificate = certify([unlucky], [Limit(PRIVACY, 0.05)])
    assert certificate.needed == 241
    broken = certify([point("b", {"privacy": 0.3}, {"privacy": coins(70)})], [Limit(PRIVACY, 0.04)])
    assert broken.needed is None
    assert broken.sentence().endswith("certify: privacy ≤ 4 % is asked, 29.2 % found")


def test_a_limit_of_zero_is_never_certified() -> None:
    certificate = certify(certified_pair(), [Limit(PRIVACY, 0.0)])
    assert certificate.chosen is None
    assert "no number of items would certify" in certificate.sentence()


def test_a_quantile_is_certified_by_the_share_of_items_over_it() -> None:
    waits = np.array([100.0] * 238 + [900.0] * 2)
    fast = point("fast", {"latency_p95_ms": 100.0}, {"latency_p95_ms": waits})
    certificate = certify([fast], [Limit(LATENCY, 800.0)])
    (test,) = certificate.tested[0].limits
    assert test.method == "binomial"
    assert certificate.sentence() == (
        "with 95 % confidence: fast has latency ≤ 800 ms for 95 % of requests (n = 240)"
    )
    slow = point(
        "fast", {"latency_p95_ms": 100.0}, {"latency_p95_ms": waits[::-1].repeat(12)[:240]}
    )
    assert certify([slow], [Limit(LATENCY, 800.0)]).chosen is None


def test_the_order_of_testing_comes_from_validation_alone() -> None:
    limits = [Limit(PRIVACY, 0.25)]
    good = {"privacy": coins(0)}
    bad = {"privacy": coins(240)}
    measured = {"a": {"utility": 0.8, "privacy": 0.1}, "b": {"utility": 0.9, "privacy": 0.2}}
    orders = [
        certify([point(k, m, v) for k, m in measured.items()], limits).order for v in (good, bad)
    ]
    assert orders[0] == orders[1] == ("a", "b")


def test_a_point_that_broke_a_limit_on_validation_is_tested_last() -> None:
    points = [
        point("leaky", {"utility": 0.99, "privacy": 0.3}),
        point("dominated", {"utility": 0.7, "privacy": 0.2}),
        point("best", {"utility": 0.8, "privacy": 0.1}),
    ]
    order = certify(points, [Limit(PRIVACY, 0.25)]).order
    assert order == ("best", "dominated", "leaky")


def test_the_sequence_stops_at_the_first_failure() -> None:
    points = [
        point("first", {"utility": 0.8, "privacy": 0.01}, {"privacy": coins(120)}),
        point("second", {"utility": 0.9, "privacy": 0.02}, {"privacy": coins(0)}),
    ]
    certificate = certify(points, [Limit(PRIVACY, 0.05)])
    assert [t.point for t in certificate.tested] == ["first"]
    assert certificate.certified == ()


def test_among_certified_points_the_preferred_objective_chooses() -> None:
    points = [
        point("safe", {"utility": 0.7, "privacy": 0.0}, {"privacy": coins(0)}),
        point("able", {"utility": 0.9, "privacy": 0.01}, {"privacy": coins(1)}),
    ]
    certificate = certify(points, [Limit(PRIVACY, 0.05)])
    assert certificate.certified == ("safe", "able")
    assert certificate.chosen is not None
    assert certificate.chosen.point == "able"
    cheap = certify(points, [Limit(PRIVACY, 0.05)], prefer="privacy")
    assert cheap.chosen is not None
    assert cheap.chosen.point == "safe"


@pytest.mark.parametrize(
    ("limits", "options", "message"),
    [
        ([], {}, "no limit is given"),
        ([Limit(PRIVACY, 0.1)], {"delta": 0.0}, "delta"),
        ([Limit(PRIVACY, 0.1, "lrge")], {}, "did you mean 'large'"),
        ([Limit(LATENCY, 1.0)], {}, "no objective named 'latency_p95_ms'"),
    ],
)
def test_what_cannot_be_certified_is_refused(
    limits: list[Limit], options: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        certify(certified_pair(), limits, **options)  # type: ignore[arg-type]


def test_values_of_different_items_or_outside_their_bounds_are_refused() -> None:
    first = point("a", {"privacy": 0.1}, {"privacy": coins(1, 10)})
    with pytest.raises(ConfigError, match="the same items"):
        certify([first, point("b", {"privacy": 0.1}, {"privacy": coins(1, 11)})],
                [Limit(PRIVACY, 0.2)])  # fmt: skip
    with pytest.raises(ConfigError, match="outside 0 to 1"):
        certify([point("a", {"privacy": 0.1}, {"privacy": np.array([2.0])})], [Limit(PRIVACY, 0.2)])


def kept(wrong: int, right: int, asked: int) -> Floats:
    return np.array([1.0] * wrong + [0.0] * right + [np.nan] * asked)


def test_a_share_of_some_items_is_tested_on_these_alone() -> None:
    values = {"wrong_at_home": kept(2, 98, 140), "privacy": coins(0)}
    found = certify(
        [point("router", {"wrong_at_home": 0.02, "privacy": 0.0}, values)],
        [Limit(AT_HOME, 0.1), Limit(PRIVACY, 0.05)],
    )
    assert found.chosen is not None
    at_home, privacy = found.chosen.limits
    assert (at_home.method, at_home.n, privacy.n) == ("binomial", 100, 240)
    assert at_home.value == pytest.approx(0.02)
    assert "wrong at home ≤ 10 % (of 100 items), privacy ≤ 5 % (n = 240)" in found.sentence()


@pytest.mark.parametrize("values", [kept(20, 80, 140), kept(0, 0, 240)])
def test_a_share_that_is_too_high_or_of_nothing_certifies_nothing(values: Floats) -> None:
    found = certify(
        [point("router", {"wrong_at_home": 0.02}, {"wrong_at_home": values})],
        [Limit(AT_HOME, 0.1)],
    )
    assert found.chosen is None or found.chosen.limits[0].p is None


def test_a_share_of_some_items_has_no_limit_relative_to_another_points() -> None:
    points = [point(n, {"wrong_at_home": 0.1}, {"wrong_at_home": kept(1, 9, 0)}) for n in "ab"]
    with pytest.raises(ConfigError, match="about other items at each point"):
        certify(points, [Limit(AT_HOME, 1.0, "b")])


def test_no_points_are_no_error() -> None:
    assert certify([], [Limit(PRIVACY, 0.1)]).sentence().startswith("no point can be certified")


@pytest.mark.parametrize("objective", [LATENCY, UTILITY])
def test_a_value_that_is_no_number_certifies_nothing(objective: Objective) -> None:
    values = np.full(240, 0.5)
    values[7] = np.nan
    made = point("a", {objective.name: 0.5}, {objective.name: values})
    bound = 1.0 if objective is LATENCY else 0.1
    with pytest.raises(ConfigError, match="values that are none"):
        certify([made], [Limit(objective, bound)])


def twin(name: str, utility: float, privacy: float, values: Floats, *defences: str) -> Point:
    made = point(name, {"utility": utility, "privacy": privacy}, {"privacy": values})
    return replace(made, strategy="large", defences=defences)


LIMITS = [Limit(PRIVACY, 0.25)]


@pytest.mark.parametrize(
    ("plain", "defended", "why"),
    [
        ((0.9, 0.05, coins(0)), (0.8, 0.05, coins(0)), "keeps the limits too; large was chosen"),
        ((0.9, 0.01, coins(0)), (0.8, 0.2, coins(200)), "was tested and not certified (p = 1)"),
        ((0.9, 0.01, coins(200)), (0.9, 0.2, coins(0)), "was not tested: testing stopped at large"),
    ],
)
def test_a_twin_with_a_defence_more_is_not_passed_over_in_silence(
    plain: tuple[float, float, Floats], defended: tuple[float, float, Floats], why: str
) -> None:
    points = [twin("large", *plain), twin("large+p", *defended, "p")]
    certificate = certify(points, LIMITS)
    (told,) = passed_over(points, {"large", "large+p"}, ["utility", "privacy"], certificate)
    assert told.startswith(f"large+p {why}")


def test_a_twin_off_the_front_is_told_with_what_beats_it() -> None:
    points = [twin("large", 0.9, 0.1, coins(0)), twin("large+p", 0.8, 0.1, coins(0), "p")]
    compared = ["utility", "privacy"]
    front = {p.name for p in pareto_front(points, compared)}
    assert passed_over(points, front, compared) == [
        "large+p is not on the front: large is as good or better in all that is compared "
        "(utility 80 % against 90 %, privacy 10 %)"
    ]


def test_other_points_are_no_twins() -> None:
    other = replace(twin("other", 0.8, 0.1, coins(0), "p"), settings={"calls": 0.4})
    points = [twin("large", 0.9, 0.1, coins(0)), other]
    assert passed_over(points, {"large"}, ["utility", "privacy"], certify(points, LIMITS)) == []
    both = [twin("large+p", 0.9, 0.1, coins(0), "p"), twin("large", 0.8, 0.1, coins(0))]
    assert passed_over(both, {"large+p"}, ["utility", "privacy"], certify(both, LIMITS)) == []
