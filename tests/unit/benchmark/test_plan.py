"""A plan is checked whole before anything runs, and what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosilo.benchmark.plan import Plan, Range, limit_texts, load_plan, parse_plan
from cosilo.boundary.meter import Budget
from cosilo.defences.base import Defence, defences
from cosilo.errors import ConfigError
from cosilo.models.base import Access, Shows, models
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.objectives.base import Link
from cosilo.objectives.links import LINKS
from cosilo.session import make_model
from cosilo.strategies.inference.cascade import Cascade


class Idle(Defence):
    """Guards nothing."""


@pytest.fixture(autouse=True, scope="module")
def scripted() -> None:
    if "scripted" not in models.names():
        models.register("scripted")(ScriptedModel)
    if "idle" not in defences.names():
        defences.register("idle")(Idle)


HEAD = """
name = "desk"
[task]
kind = "classification"
file = "data.jsonl"
[models.small]
kind = "scripted"
[models.large]
kind = "scripted"
exposes = "logprobs"
usd_per_m_in = 2.5
"""
POINT = """
[[points]]
strategy = "large"
"""


def plan(text: str) -> Plan:
    return parse_plan(text, Path("/somewhere/desk.toml"))


def test_a_small_plan_has_sensible_defaults() -> None:
    found = plan(HEAD + POINT)
    assert found.name == "desk"
    assert found.concurrency == 8
    assert found.link == Link()
    assert found.links == LINKS
    assert found.budget == Budget()
    assert found.large.exposes is Access.LOGPROBS.shows
    assert found.large.price.usd_per_m_in == 2.5
    assert found.small.exposes is Shows.TEXT
    assert [p.name for p in found.points] == ["large"]
    assert found.task.kind == "classification"


def test_lists_are_grids_and_every_combination_is_a_point() -> None:
    found = plan(
        HEAD
        + """
[defences.masked]
kind = "idle"
[[points]]
strategy = "cascade"
calls = [0.2, 0.4]
distrust = [0.01, 0.05]
defences = [[], ["masked"]]
"""
    )
    assert [p.name for p in found.points] == [
        "cascade-calls=0.2-distrust=0.01",
        "cascade-calls=0.2-distrust=0.05",
        "cascade-calls=0.4-distrust=0.01",
        "cascade-calls=0.4-distrust=0.05",
        "cascade-calls=0.2-distrust=0.01+masked",
        "cascade-calls=0.2-distrust=0.05+masked",
        "cascade-calls=0.4-distrust=0.01+masked",
        "cascade-calls=0.4-distrust=0.05+masked",
    ]
    assert [d.kind for d in found.points[-1].defences] == ["idle"]


def test_one_value_is_no_grid_and_needs_no_suffix() -> None:
    found = plan(HEAD + '[[points]]\nname = "mine"\nstrategy = "cascade"\ncalls = [0.3]\n')
    assert [(p.name, dict(p.options)) for p in found.points] == [("mine", {"calls": 0.3})]


def test_a_table_option_is_passed_whole() -> None:
    found = plan(
        HEAD
        + """
[[points]]
strategy = "distil_labels"
then = "cascade"
then_options = {calls = 0.2}
"""
    )
    assert found.points[0].options["then_options"] == {"calls": 0.2}
    assert found.points[0].options["seed"] == 0


def test_ranges_make_a_search_space() -> None:
    found = plan(
        HEAD
        + """
[search]
trials = 4
[[points]]
strategy = "cascade"
threshold = {low = 0.1, high = 0.9}
[[points]]
strategy = "supericl"
examples = {low = 1, high = 8, log = true}
"""
    )
    first, second = found.spaces
    assert first.ranges == {"threshold": Range(low=0.1, high=0.9)}
    assert first.lowest.options == {"threshold": 0.1}
    assert second.whole == {"examples"}
    assert second.at({"examples": 3}).options["examples"] == 3
    assert not found.points


def test_paths_start_beside_the_plan(tmp_path: Path) -> None:
    more = '[replay]\npath = "shared.sqlite"\n[privacy]\nepsilon = 2\nbook = "book.sqlite"\n'
    (tmp_path / "p.toml").write_text(HEAD + POINT + more)
    found = load_plan(tmp_path / "p.toml")
    assert found.base == tmp_path
    assert found.replay.path == tmp_path / "shared.sqlite"
    assert (found.privacy.epsilon, found.privacy.book) == (2.0, tmp_path / "book.sqlite")
    assert plan(HEAD + POINT).privacy.book is True, "the user's own"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD, "desk.toml: 'points' must be given"),
        ("points = []" + HEAD, "desk.toml: no [[points]] are given"),
        (HEAD + POINT + "[lnk]\n", "desk.toml: no key named 'lnk'; did you mean 'link'?"),
        (HEAD + POINT + "[links.a]\nmbit_per_s = 0\n", "mbit_per_s above 0"),
        (HEAD + POINT + "[link]\nrtt = 3\n", "no key named 'rtt'; did you mean 'rtt_ms'?"),
        (HEAD + POINT + "[budget]\nusd = 'x'\n", "budget: usd must be a number, not 'x'"),
        (HEAD.replace('"desk"', "3") + POINT, "desk.toml: name must be text, not 3"),
        (HEAD.replace('"desk"', '"a/b"') + POINT, "name = 'a/b' cannot name a folder"),
        (HEAD + '[[points]]\nstrategy = "cascde"', "did you mean 'cascade'?"),
        (HEAD + '[[points]]\nstrategy = "cascade"\ncals = 1', "'cals'; did you mean 'calls'?"),
        (HEAD + '[[points]]\nstrategy = "cascade"\ncalls = "x"', "calls must be a number, not 'x'"),
        (HEAD + '[[points]]\nstrategy = "cascade"\ncalls = 2', "calls = 2.0 is not between"),
        (
            HEAD + '[[points]]\nstrategy = "cascade"\ncalls = [0.1, "x"]',
            "calls[1] must be a number",
        ),
        (HEAD + '[[points]]\nstrategy = "cascade"\ncalls = []', "calls is an empty list"),
        (HEAD + '[[points]]\nstrategy = "large"\ndefences = ["pseudonim"]', "no defence named"),
        (HEAD + '[[points]]\nstrategy = "large"\ndefences = "x"', "defences must be a list"),
        (HEAD + "[[points]]\ncalls = 1", "strategy must be given"),
        (HEAD + POINT + POINT, "two points are named 'large'"),
        (HEAD.replace("scripted", "scriptd", 1) + POINT, "[models.small]: no model named"),
        (HEAD.replace("[models.small]", "[models.smal]") + POINT, "did you mean 'small'?"),
        (HEAD.replace('exposes = "logprobs"', 'expose = "x"') + POINT, "did you mean 'exposes'?"),
        (HEAD.replace('"logprobs"', '"logprob"') + POINT, "did you mean 'logprobs'?"),
        (HEAD.replace('kind = "classification"', 'kin = "x"') + POINT, "[task]"),
        (HEAD + "[search]\ntrials = 3" + POINT, "[search] needs an option given as"),
        (
            HEAD + '[[points]]\nstrategy = "cascade"\ncalls = {low = 0.1, high = 0.2}',
            "add a [search] table",
        ),
        (
            HEAD + '[search]\ntrials = 1\n[[points]]\nstrategy = "cascade"\n'
            "calls = {low = 0.3, high = 0.2}",
            "low = 0.3 is not below high = 0.2",
        ),
        (HEAD + POINT + "[attacks]\ntamper_share = 2", "tamper_share = 2.0 is not between"),
        (HEAD + POINT + '[attacks]\nnames = ["relinkk"]', "no attack named 'relinkk'"),
        ("name = ", "desk.toml: not TOML"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        plan(text)
    assert message in str(error.value)
    assert str(error.value).startswith("desk.toml")


def test_files_that_are_no_plans(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the plan"):
        load_plan(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load_plan(tmp_path / "bad.toml")


def test_links_of_ones_own_take_the_place_of_the_usual_ones() -> None:
    text = HEAD + POINT + '[links."to the branch"]\nrtt_ms = 600\nmbit_per_s = 2\n'
    assert plan(text).links == {"to the branch": Link(600, 2)}


def test_options_have_the_strategys_own_types() -> None:
    found = plan(HEAD + '[[points]]\nstrategy = "cascade"\ncalls = 1\n')
    assert Cascade(**found.points[0].options) == Cascade(calls=1.0)
    assert isinstance(found.points[0].options["calls"], float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[limits]\nprivasy = 0.1", "did you mean 'privacy'"),
        ("[at_least]\nprivacy = 0.1", "at most something"),
        ('[at_least]\nutility = "0.9x-larg"', "did you mean 'large'"),
        ("[limits]\nprivacy = 2", "'privacy' lies between 0 and 1; 5% is 0.05"),
        ('[limits]\nprivacy = "500%"', "lies between 0 and 1"),
        ("[limits]\nprivacy = nan", "'nan' is not a number"),
        ("[limits]\nusd_per_1k = -1", "cannot be below 0"),
        ("[at_least]\nutility = 1.5", "lies between 0 and 1"),
        ("[request_budget]\nusd = 0", "not positive"),
        ("[request_budget]\nusd = nan", "not positive"),
        ("[budget]\nusd = -1", "usd = -1.0 is no limit from 0 on"),
        ("[budget]\nusd = nan", "usd = nan is no limit from 0 on"),
        ("[budget]\ntokens_in = -5", "tokens_in = -5 is no limit from 0 on"),
        ("[request_budget]\nbytes_down = 5", "bytes_up"),
        ("[privacy]\nepsilon = 2.0\nbook = false", "an ε budget needs a book"),
        ("[privacy]\nepsilon = 0", "epsilon = 0.0 is not positive"),
        ("[privacy]\ndelta = 1", "delta = 1.0 is not between"),
        ("[privacy]\nepsilom = 1", "did you mean 'epsilon'"),
    ],
)
def test_limits_and_budgets_are_checked_before_anything_is_spent(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(HEAD.replace("[task]", f"{text}\n[task]", 1) + POINT)


def test_a_limit_may_be_a_percentage() -> None:
    text = HEAD.replace("[task]", '[limits]\nprivacy = "5%"\nusd_per_1k = 1\n[task]', 1)
    found = plan(text + POINT)
    assert limit_texts(found.limits, found.at_least)[0] == ["privacy=5%", "usd_per_1k=1.0"]


def test_a_budget_for_each_request() -> None:
    assert plan(HEAD + POINT).request_budget.budget is None
    found = plan(HEAD.replace("[task]", "[request_budget]\nusd = 0.01\n[task]", 1) + POINT)
    assert found.request_budget.budget == Budget(usd=0.01)


def test_every_term_of_a_price_is_read() -> None:
    terms = "usd_per_m_cached = 0.5\nusd_per_hour = 2.0\nlongest_s = 30\nusd_per_gb = 0.09\n"
    price = plan(HEAD + terms + POINT).large.price
    assert (price.usd_per_m_cached, price.usd_per_hour, price.longest_s) == (0.5, 2.0, 30.0)
    assert price.usd_per_gb == 0.09


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ("usd_per_hour = 2.0", r"\[models\.large\]: usd_per_hour needs longest_s: .*'scripted'"),
        ("usd_per_m_cached = 3.0", "usd_per_m_cached = 3.0 is not between 0 and usd_per_m_in"),
        ("usd_per_gb = -1", "usd_per_gb = -1.0 is no price"),
        ("longest_s = 0", "longest_s = 0.0 is no positive"),
    ],
)
def test_a_price_without_a_bound_is_refused(terms: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(HEAD + terms + POINT)


def test_a_request_to_a_rented_machine_takes_as_long_as_its_timeout() -> None:
    kind = HEAD.replace(
        'kind = "scripted"\nexposes = "logprobs"',
        'kind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\nmodel = "m"\nusd_per_hour = 2.0',
    )
    assert plan(kind + POINT).large.price.longest_s == 120.0


NO_LARGE = HEAD.partition("[models.large]")[0]
SEVERAL = (
    NO_LARGE
    + """
[models.large.a]
kind = "scripted"
usd_per_m_in = 1.0
[models.large.b]
kind = "scripted"
usd_per_m_in = 2.0
exposes = "logprobs"
link = {rtt_ms = 5}
[models.large.kind]
kind = "scripted"
"""
)


def test_one_large_model_is_called_so() -> None:
    found = plan(HEAD + POINT)
    assert found.peers == {"large": found.large}
    assert found.peers_of(found.points[0]) == found.peers


def test_several_other_sides_have_a_name_and_all_else_each() -> None:
    found = plan(SEVERAL + '[[points]]\nstrategy = "ensemble"\n')
    assert list(found.peers) == ["a", "b", "kind"]
    assert found.large is found.peers["a"]
    assert [p.price.usd_per_m_in for p in found.peers.values()] == [1.0, 2.0, 0.0]
    assert found.peers["b"].exposes is Access.LOGPROBS.shows
    assert found.peers["b"].link == Link(rtt_ms=5.0)
    assert found.peers["a"].link is None
    assert found.peers_of(found.points[0]) == found.peers
    listed = NO_LARGE + "".join(
        f'[[models.large]]\nname = "{name}"\nkind = "scripted"\n' for name in ("x", "y")
    )
    both = plan(listed + POINT).peers
    assert list(both) == ["x", "y"]
    own = [
        make_model(config).name for config in both.values()
    ]  # what its answers are recorded under
    assert own == ["x", "y"]


def test_a_point_says_to_whom_it_speaks() -> None:
    found = plan(
        SEVERAL
        + '[[points]]\nstrategy = "large"\n'
        + '[[points]]\nname = "second"\nstrategy = "large"\npeers = ["b"]\n'
        + '[[points]]\nname = "each"\nstrategy = "large"\npeers = [["a"], ["b"]]\n'
        + '[[points]]\nstrategy = "ensemble"\npeers = ["b", "a"]\n'
        + '[[points]]\nstrategy = "small"\n'
    )
    asked = {p.name: list(found.peers_of(p)) for p in found.points}
    assert asked == {
        "large": ["a"],
        "second": ["b"],
        "each@a": ["a"],
        "each@b": ["b"],
        "ensemble": ["b", "a"],
        "small": [],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            SEVERAL + '[models.large.a]\nkind = "scripted"\n' + POINT,
            "two large models are named 'a'",
        ),
        (
            NO_LARGE + '[[models.large]]\nname = "a"\nkind = "scripted"\n' * 2 + POINT,
            "two large models are named 'a'",
        ),
        (NO_LARGE + '[[models.large]]\nkind = "scripted"\n' + POINT, "a table with a name"),
        (HEAD + '[models.large.b]\nkind = "scripted"\n' + POINT, "the first one, too"),
        (NO_LARGE + '[models.large."a/b"]\nkind = "scripted"\n' + POINT, "'a/b' cannot name"),
        (NO_LARGE + "[models.large.a]\nseconds = 1.0\n" + POINT, r"models.large.a\].*kind"),
        (NO_LARGE + "[models.large]\n" + POINT, r"models.large\].*kind"),
        (
            NO_LARGE.replace("[models.small]", "[models]\nlarge = 3\n[models.small]") + POINT,
            "table",
        ),
        (SEVERAL + '[[points]]\nstrategy = "large"\npeers = ["c"]\n', "no large model named 'c'"),
        (SEVERAL + '[[points]]\nstrategy = "large"\npeers = ["a", "b"]\n', "a list of lists"),
        (SEVERAL + '[[points]]\nstrategy = "ensemble"\npeers = ["a", "a"]\n', "twice"),
        (SEVERAL + '[[points]]\nstrategy = "ensemble"\npeers = ["a"]\n', "needs 2 large models"),
        (HEAD + '[[points]]\nstrategy = "ensemble"\n', r"needs 2 .*there is 1 \(large\)"),
        (SEVERAL + '[[points]]\nstrategy = "large"\npeers = "a"\n', "peers must be a list"),
        (SEVERAL + '[attacks]\ntamper_by = ["c"]\n' + POINT, "tamper_by: no large model named 'c'"),
    ],
)
def test_what_is_wrong_with_several_large_models_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(text)
