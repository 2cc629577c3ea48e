"""A configuration is read and checked whole; what is wrong in it is named with what would do."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosilo.errors import ConfigError
from cosilo.gateway.process.config import (
    MOST_AT_ONCE,
    Layout,
    ServerConfig,
    load_gateway,
    load_tables,
    parse_gateway,
)
from cosilo.gateway.serving.points import Serving
from cosilo.gateway.serving.upstreams import Absent
from cosilo.models.base import Access
from cosilo.types import Sampling

GOOD = """
[server]
port = 9000
workers = 2
[store]
url = "there"
[models.lm]
kind = "scripted"
exposes = "logprobs"
usd_per_m_in = 1.5
[models.lm.breaker]
consecutive = 2
[models.next]
kind = "openai"
base_url = "http://127.0.0.1:1/v1"
model = "m"
[models.sm]
kind = "scripted"
[defences.hide]
kind = "pseudonym"
detectors = ["patterns"]
[[points]]
name = "private"
strategy = "cascade"
threshold = 0.5
large = ["lm", "next"]
small = "sm"
fallback = "small"
defences = ["hide"]
timeout_seconds = 3
sampling = {max_tokens = 9, temperature = 0.5}
system = "Be brief."
[[points]]
strategy = "large"
large = "lm"
"""


def parse(text: str) -> Layout:
    return parse_gateway(text, Path("/somewhere/gateway.toml"))


def test_everything_is_taken_over() -> None:
    layout = parse(GOOD)
    assert layout.base == Path("/somewhere")
    assert (layout.server.port, layout.server.workers, layout.store.url) == (9000, 2, "there")
    parts = layout.load()
    assert set(parts.upstreams) == {"lm", "next"}
    lm = parts.upstreams["lm"]
    assert (lm.exposes, lm.price.usd_per_m_in) == (Access.LOGPROBS.shows, 1.5)
    assert lm.breaker.config.consecutive == 2
    private, large = parts.recipes
    assert (private.system, large.system) == ("Be brief.", "")
    assert (private.name, private.config.strategy, private.config.options) == (
        "private", "cascade", {"threshold": 0.5},
    )  # fmt: skip
    assert private.upstreams == ("lm", "next")
    assert private.serving == Serving(fallback="small", timeout_seconds=3)
    assert private.sampling == Sampling(max_tokens=9, temperature=0.5)
    assert (large.name, large.upstreams) == ("large", ("lm",))
    assert isinstance(large.owner.model, Absent)
    assert large.sampling.max_tokens == 1024


def test_a_small_model_that_points_share_is_loaded_once() -> None:
    more = '[[points]]\nname = "other"\nstrategy = "small"\nsmall = "sm"\n'
    private, _, other = parse(GOOD + more).load().recipes
    assert private.owner.model is other.owner.model


def test_what_is_consistent_stays_so_over_a_conversation() -> None:
    private = parse(GOOD).load().recipes[0]
    assert private.config.defences[0].options["conversation"] == "first-turn"
    assert private.config.defences[0].options["apart"] is True
    stated = GOOD.replace('["patterns"]', '["patterns"]\nconversation = "request"')
    kept = parse(stated).load().recipes[0]
    assert kept.config.defences[0].options["conversation"] == "request"


def test_a_large_model_takes_many_requests_at_once_unless_it_says_how_many() -> None:
    assert parse(GOOD).load().upstreams["next"].model.concurrency == MOST_AT_ONCE  # type: ignore[attr-defined]
    stated = GOOD.replace('model = "m"', 'model = "m"\nconcurrency = 3')
    assert parse(stated).load().upstreams["next"].model.concurrency == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("port = 9000", "prot = 9000", "did you mean 'port'"),
        ("port = 9000", "port = 90000", "90000"),
        ("workers = 2", "workers = 0", "workers = 0"),
        ("workers = 2", 'workers = "2"', "a whole number"),
        ("workers = 2", "drain_seconds = -1", "negative"),
        ("workers = 2", "max_body_bytes = 999999999999", "held_body_bytes"),
        ('url = "there"', 'ulr = "there"', "did you mean 'url'"),
        ('url = "there"', 'keep = "content"', "content_keys"),
        ('url = "there"', "retention_days = 3", "keep"),
        ('url = "there"', "requests_days = 0", "not positive"),
        ("consecutive = 2", "consecutive = 0", "at least 1"),
        ("[models.lm.breaker]", "[models.sm.breaker]", "no point has it as its large model"),
        ('strategy = "cascade"', 'strategy = "cascde"', "did you mean 'cascade'"),
        ("threshold = 0.5", "treshold = 0.5", "did you mean 'threshold'"),
        ('small = "sm"', 'small = "smm"', "did you mean 'sm'"),
        ('["lm", "next"]', '["lm", "nxt"]', "did you mean 'next'"),
        ('fallback = "small"', 'fallback = "smal"', "did you mean 'small'"),
        ('defences = ["hide"]', 'defences = ["hid"]', "did you mean 'hide'"),
        ("timeout_seconds = 3", "timeout_seconds = 0", "not positive"),
        ("timeout_seconds = 3", "timeout_seconds = inf", "not positive"),
        ("workers = 2", "drain_seconds = nan", "no number"),
        ("max_tokens = 9", "max_tokens = 0", "max_tokens = 0 is not positive"),
        ("temperature = 0.5", "temperature = nan", "temperature = nan"),
        ("max_tokens = 9", "top_p = 1.5", "top_p = 1.5"),
        ("usd_per_m_in = 1.5", "usd_per_m_in = -2.0", "usd_per_m_in = -2.0 is no price"),
        ("[models.lm]", "[models.lm]\nusd_per_m_out = nan", "usd_per_m_out = nan is no price"),
        ("[models.lm]", "[models.lm]\nusd_per_m_out = inf", "usd_per_m_out = inf is no price"),
        ("max_tokens = 9", "max_token = 9", "did you mean 'max_tokens'"),
        ('name = "private"', 'name = "large"', "two points are named 'large'"),
        ('name = "private"', 'name = "a/b"', "cannot name a point"),
        ('kind = "pseudonym"', 'kind = "pseudonim"', "did you mean 'pseudonym'"),
        ("[server]", "[serve]", "did you mean 'server'"),
        ("[server]", '[server]\ncors = ["https://a.example/"]', "nothing after them"),
        ("[server]", '[server]\ncors = ["*", "https://a.example"]', "stands alone"),
        ("[server]", "[server", "not TOML"),
    ],
)
def test_what_is_wrong_is_named(old: str, new: str, said: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        parse(GOOD.replace(old, new, 1))
    assert said in str(caught.value)
    assert str(caught.value).startswith("gateway.toml")


@pytest.mark.parametrize(
    ("written", "origins"),
    [
        ("", ()),
        ('cors = "*"', ("*",)),
        ('cors = ["*"]', ("*",)),
        ('cors = ["https://a.example", "http://localhost:3000"]',
         ("https://a.example", "http://localhost:3000")),
    ],
)  # fmt: skip
def test_the_pages_that_may_call(written: str, origins: tuple[str, ...]) -> None:
    found = parse(GOOD.replace("[server]", f"[server]\n{written}", 1))
    assert found.server.origins == origins


def test_without_points_there_is_nothing_to_serve() -> None:
    with pytest.raises(ConfigError, match="nothing to serve"):
        parse('points = []\n[models.lm]\nkind = "scripted"\n')


def test_an_embedder_must_embed() -> None:
    text = GOOD.replace('small = "sm"', 'small = "sm"\nembedder = "sm"')
    with pytest.raises(ConfigError, match="'sm' cannot embed"):
        parse(text).load()


def test_an_embedder_elsewhere_is_an_upstream_of_its_own() -> None:
    more = """
[models.ada]
kind = "openai"
base_url = "https://api.example.org/v1"
model = "ada"
usd_per_m_in = 0.02
[models.ada.breaker]
consecutive = 2
"""
    text = GOOD.replace('small = "sm"', 'small = "sm"\nembedder = "ada"') + more
    parts = parse(text).load()
    ada = parts.upstreams["ada"]
    assert (ada.price.usd_per_m_in, ada.breaker.config.consecutive) == (0.02, 2)
    assert ada.place == "ada at api.example.org"
    assert parts.recipes[0].embedder == "ada"
    assert "ada" not in parts.recipes[0].upstreams
    assert parts.recipes[0].owner.embedder is None


def test_what_becomes_of_fields_and_whether_requests_may_leave() -> None:
    text = GOOD.replace(
        'small = "sm"', 'small = "sm"\nlocal_only = true\nfields = {top_k = "drop"}'
    )
    serving = parse(text).load().recipes[0].serving
    assert (serving.local_only, serving.fields) == (True, {"top_k": "drop"})
    for fields, told in (('{top_k = "allow"}', "top_k"), ('{messages = "drop"}', "messages")):
        with pytest.raises(ConfigError, match=told):
            parse(GOOD.replace('small = "sm"', f'small = "sm"\nfields = {fields}'))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_gateway(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"# \xe9")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_gateway(tmp_path / "latin.toml")


def test_the_tables_beside_a_run(tmp_path: Path) -> None:
    assert load_tables(None)[0] == ServerConfig()
    path = tmp_path / "server.toml"
    path.write_text('[server]\nport = 1\n[serving]\nfallback = "small"\n')
    server, _, serving, privacy = load_tables(path)
    assert (server.port, serving.fallback, privacy) == (1, "small", None)
    path.write_text('[privacy]\nepsilon = 2.0\nbook = "book.sqlite"\n')
    privacy = load_tables(path)[3]
    assert privacy is not None
    assert (privacy.epsilon, privacy.book) == (2.0, tmp_path / "book.sqlite")
    path.write_text("[serving]\nfalback = 1\n")
    with pytest.raises(ConfigError, match="did you mean 'fallback'"):
        load_tables(path)
