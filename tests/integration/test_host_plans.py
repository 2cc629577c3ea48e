"""Plans and a gateway whose large model is in another process: the same answers, the same bytes."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import openai
import pytest
from msgspec.structs import replace
from tests.integration.gateway import make_key, serving
from tests.integration.hosts import CLIENT, host_process, write_host

import tiny_lm
from cosilo.boundary.messages import Completion, decode, encode
from cosilo.cli import main
from cosilo.errors import ConfigError
from cosilo.gateway.record.audit import open_record
from cosilo.session import ModelConfig, make_model, read_model
from same import Run, compared
from tiny_run import PLAN, bench, write_data

REPLIES = 'kind = "scripted"\nreplies = {cat = "cat", dog = "dog", cow = "cow"}\n'


def party(folder: Path, port: int, more: str = "") -> str:
    """The table of a large model at the host on `port`, whose certificates lie in `folder`."""
    certs = folder / "certs"
    return (
        f'kind = "party"\nurl = "https://localhost:{port}"\nca = "{certs}/ca.pem"\n'
        f'cert = "{certs}/client-{CLIENT}.pem"\nkey = "{certs}/client-{CLIENT}.key"\n{more}'
    )


def elsewhere(plan: str, folder: Path, port: int, more: str = "") -> str:
    """`plan`, its large model at the host on `port`."""
    head, _, rest = plan.partition("[models.large]\n")
    end = rest.index("[")
    return f"{head}[models.large]\n{party(folder, port, more)}\n{rest[end:]}"


class Untimed(Run):
    """A run, the seconds that a reply took left out."""

    def crossed(self) -> dict[str, list[tuple[bytes, ...]]]:
        return {
            where: [tuple(map(untimed, said)) for said in each]
            for where, each in super().crossed().items()
        }


def untimed(payload: bytes) -> bytes:
    message = decode(payload)
    if not isinstance(message, Completion):
        return payload
    generation = replace(message.generation, seconds=0.0, cpu_seconds=0.0)
    return encode(replace(message, generation=generation))


def differences(one: Path, other: Path, of: type[Run] = Run) -> list[str]:
    """Where two runs differ, their trials' identities apart: another owner is another model."""
    return [str(each) for each in compared(of(one), of(other))[1:] if each.different]


def crossings(folder: Path) -> int:
    with sqlite3.connect(folder / "ledger.sqlite") as db:
        return int(db.execute("SELECT count(*) FROM entries").fetchone()[0])


def test_a_plan_gives_the_same_as_in_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there, host_folder = tmp_path / "here", tmp_path / "there", tmp_path / "lm"
    for folder in (here, there, host_folder):
        folder.mkdir()
    write_data(here)
    write_data(there)
    bench(here)
    path = write_host(host_folder, model=REPLIES)
    with host_process(path) as host:
        plan = elsewhere(PLAN, host_folder, host.port)
        outcomes, _ = bench(there, plan)
        assert [outcome.error for outcome in outcomes] == [None, None]
        assert differences(here / "run", there / "run") == []
        before = crossings(host_folder / "host")
        _, counting = bench(there, plan)  # all is recorded: nobody is asked
        assert counting.items == 0
        assert crossings(host_folder / "host") == before
    assert main(["audit", "verify", str(host_folder / "host")]) == 0
    assert main(["audit", "verify", str(there / "run" / "network.sqlite")]) == 0
    capsys.readouterr()
    both = [str(there / "run"), str(host_folder / "host")]
    assert main(["audit", "compare", *both]) == 0
    assert f"no differences; {before // 2} exchanges are the same" in capsys.readouterr().out
    with sqlite3.connect(host_folder / "host" / "ledger.sqlite") as db:
        db.execute("DROP TRIGGER entries_no_update")
        db.execute("UPDATE entries SET digest = x'00' WHERE number = 3")
    assert main(["audit", "compare", *both]) == 1
    assert "is another message than" in capsys.readouterr().out


TORCH = """
name = "desk"
[attacks]
names = ["verbatim"]
tamper_share = 0
[task]
kind = "classification"
train = "train.jsonl"
validation = "validation.jsonl"
test = "test.jsonl"
[models.small]
{small}
[models.large]
kind = "torch"
path = "../lm/large"
exposes = "activations"
[[points]]
{point}
"""
POINTS = {
    "distil_logits": (
        'kind = "torch"\npath = "../lm/small"',
        'strategy = "distil_logits"\nsteps = 3\nbatch = 4\nlearning_rate = 0.01\nk = 8',
    ),
    "distil_states": (
        'kind = "classifier"\nfeatures = "embedding"\ntrain = true\ntrain_items = 6',
        'strategy = "distil_states"',
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "strategy",
    [
        "distil_logits",
        pytest.param("distil_states", marks=pytest.mark.models("minilm-int8")),
    ],
)
def test_logits_and_states_cross_as_in_process(tmp_path: Path, strategy: str) -> None:
    pytest.importorskip("torch")
    lm = tmp_path / "lm"
    lm.mkdir()
    tiny_lm.folder(lm / "large", seed=0)
    tiny_lm.folder(lm / "small", seed=1)
    small, point = POINTS[strategy]
    plan = TORCH.format(small=small, point=point)
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        for split, size in {"train": 12, "validation": 4, "test": 8}.items():
            rows = [
                {"text": f"{split} about {i}", "label": ("refund", "billing")[i % 2]}
                for i in range(size)
            ]
            (tmp_path / name / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        (tmp_path / name / "p.toml").write_text("")
    outcomes, _ = bench(tmp_path / "here", plan)
    assert [outcome.error for outcome in outcomes] == [None]
    path = write_host(lm, model='kind = "torch"\npath = "large"\nexposes = "activations"')
    with host_process(path) as host:
        moved = elsewhere(plan, lm, host.port, 'exposes = "activations"\n')
        outcomes, _ = bench(tmp_path / "there", moved)
        assert [outcome.error for outcome in outcomes] == [None]
    assert differences(tmp_path / "here" / "run", tmp_path / "there" / "run", Untimed) == []
    assert main(["audit", "compare", str(tmp_path / "there" / "run"), str(lm / "host")]) == 0


def test_a_stream_through_the_gateway(tmp_path: Path) -> None:
    lm, folder = tmp_path / "lm", tmp_path / "gateway"
    lm.mkdir()
    folder.mkdir()
    path = write_host(lm, model='kind = "scripted"\nreplies = {hello = "Hello to you all"}')
    with host_process(path) as host:
        config = (
            f"[models.lm]\n{party(lm, host.port)}\n"
            '[[points]]\nname = "there"\nstrategy = "large"\nlarge = "lm"\n'
            '[[points]]\nname = "here"\nstrategy = "large"\nlarge = "own"\n'
            '[models.own]\nkind = "scripted"\nreplies = {hello = "Hello to you all"}\n'
        )
        key = make_key(folder, "test")
        with serving(folder, config) as gateway:
            client = openai.OpenAI(base_url=gateway.url, api_key=key, max_retries=0)
            said = {}
            for point in ("there", "here"):
                stream = client.chat.completions.create(
                    model=f"cosilo/{point}",
                    messages=[{"role": "user", "content": "hello"}],
                    stream=True,
                )
                said[point] = [c.choices[0].delta.content for c in stream if c.choices]
            client.close()
            assert said["there"] == said["here"]
            assert "".join(filter(None, said["there"])) == "Hello to you all"
    up, down, up_here, down_here = crossed(folder / "store")
    assert (up, down) == (up_here, down_here)
    assert crossed(lm / "host") == [up, down]


def crossed(folder: Path) -> list[tuple[str, bytes | None, int]]:
    with open_record(str(folder)) as record:
        entries = sorted(record.entries(), key=lambda entry: entry.at)
    return [(entry.direction, entry.content_digest, entry.size) for entry in entries]


def test_another_owner_is_no_small_model(tmp_path: Path) -> None:
    config = ModelConfig(kind="party", options={"url": "http://127.0.0.1:1"})
    with pytest.raises(ConfigError, match="another owner, so only `large`"):
        make_model(config)
    table = {"kind": "party", "url": "https://lm.example", "ca": "certs/ca.pem"}
    found = read_model(table, where="p.toml", base=tmp_path)
    assert found.options["ca"] == str(tmp_path / "certs" / "ca.pem")


def test_a_host_in_clear_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    write_data(tmp_path)
    plan = elsewhere(PLAN, tmp_path, 1).replace("https://localhost:1", "http://lm.example")
    with pytest.raises(ConfigError, match="would send in clear to another machine"):
        bench(tmp_path, plan)


def test_more_than_its_allowance_stops_a_run(tmp_path: Path) -> None:
    write_data(tmp_path)
    path = write_host(tmp_path, model=REPLIES, clients="total = {messages = 20}")
    with host_process(path) as host:
        outcomes, _ = bench(tmp_path, elsewhere(PLAN, tmp_path, host.port))
    assert any("20 messages in all" in str(outcome.error) for outcome in outcomes)
