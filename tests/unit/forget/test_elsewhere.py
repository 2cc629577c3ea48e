"""What a party has of a run is named by what it knows it by, and what it signs is called what it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cosilo.benchmark.plan import parse_plan
from cosilo.benchmark.store import Store, Trial
from cosilo.boundary.messages import Ask, Contribute, Forgotten, Message, encode
from cosilo.boundary.messages.forget import ForgottenItem, InFederation
from cosilo.boundary.record.ledger import SqliteLedger
from cosilo.cli import main
from cosilo.cli.forget import _summary
from cosilo.errors import StoreError
from cosilo.forget.elsewhere import ask_party, askable, held_of, keep_names
from cosilo.forget.erasure import statement
from cosilo.forget.home import DataRun
from cosilo.forget.planning import _asked, _sent
from cosilo.lineage.artifacts import Artifact, ArtifactKind
from cosilo.lineage.requests import ForgetRequest, ForgetStep, Method, StepState
from cosilo.parties.held_elsewhere import HeldElsewhere
from cosilo.types import user
from tiny_run import PLAN

NAME, OTHER, FORGET = 32 * "1", 32 * "2", 32 * "f"
DELETED = ForgottenItem(what="request", how="deleted", names=(NAME, OTHER), count=2)
NOTHING = ForgottenItem(what="request", how="nothing", names=(32 * "3",))
ROUNDS = ForgottenItem(what="federation", how="approximate", names=("ef" * 16,), first=2, last=3)
KEPT = ForgottenItem(what="request", how="cannot", names=(NAME,), left=("digests", "contents"))
OLD = ForgottenItem(what="request", how="deleted", names=(NAME,), left=("digests",))


def run_in(
    folder: Path, large: str = 'kind = "party"\nurl = "https://lm:1"\nca = "ca.pem"\n'
) -> DataRun:
    head, _, rest = PLAN.partition("[models.large]\n")
    plan = f"{head}[models.large]\n{large}{rest[rest.index('[') :]}"
    (folder / "run").mkdir(exist_ok=True)
    Store(folder / "run", write=True).close()
    return DataRun(folder / "run", parse_plan(plan, folder / "p.toml"))


async def record(
    path: Path, chain: str, *crossed: tuple[str, Message], keep: str = "content"
) -> None:
    ledger = SqliteLedger(path, chain, keep=keep)  # type: ignore[arg-type]
    for name, message in crossed:
        await ledger.append(name, "up", message, encode(message))
    ledger.close()


def signed(folder: Path, *outcomes: ForgottenItem) -> Path:
    answer = Forgotten(forget=FORGET, asked="ab", at=1.0, outcomes=outcomes)
    path = folder / "answers.json"
    path.write_text(json.dumps({"format": 1, "host": "lm", "answers": [encode(answer).hex()]}))
    return path


def asked(run: DataRun, folder: Path) -> tuple[StepState, str, str]:
    told = ask_party(
        run, "large", forget=FORGET, until=9.0, names=folder / "names",
        answers=folder / "answers.json", say=lambda _: None,
    )  # fmt: skip
    return told.state, told.evidence.what if told.evidence else "", told.note


@pytest.mark.parametrize(
    ("outcomes", "state", "what", "note"),
    [
        ((DELETED, NOTHING), StepState.DONE, "2 deleted, 1 nothing", ""),
        ((DELETED, ROUNDS), StepState.APPROXIMATE, "1 approximate, 2 deleted", "not made again"),
        ((ROUNDS, KEPT), StepState.UNREACHABLE, "1 approximate, 1 cannot", "contents, digests"),
        ((OLD,), StepState.UNREACHABLE, "1 deleted", "left there: digests"),
    ],
)
def test_what_a_party_signed_is_called_what_it_is(
    tmp_path: Path, outcomes: tuple[ForgottenItem, ...], state: StepState, what: str, note: str
) -> None:
    signed(tmp_path, *outcomes)
    told = asked(run_in(tmp_path), tmp_path)
    assert told[0] is state
    assert told[1] == f"the party signed: {what}"
    assert note in told[2]


FLOWER = 'kind = "flower"\nsuperlink = "lm:9092"\npython = "python"\nca = "ca.pem"\nkey = "k"\n'


async def test_what_flower_carries_is_not_asked_and_listed_as_out_of_reach(tmp_path: Path) -> None:
    run = run_in(tmp_path, FLOWER)
    update = Contribute(federation=32 * "a", number=1, rank=2, packed=b"x")
    await record(run.folder / "network.sqlite", "large/1", (NAME, update))
    await record(run.folder / "ledger.sqlite", "7/peers/large", ("prepare", update))
    sent = Artifact(
        id="trial/7/sent/large", kind=ArtifactKind.ABROAD, place="large", made_by="federated"
    )
    assert not askable(run, "large")
    assert list(_asked(run, [sent], 9.0)) == []
    trials = {"7": Trial("7", "federated", "", "done")}
    step = _sent(
        ForgetStep(method=Method.NONE, artifact=sent.id, kind=sent.kind), run, sent, trials
    )
    assert step.state is StepState.UNREACHABLE
    assert step.note.startswith("large: 1 message sent to it by the point federated")
    request = ForgetRequest(id=FORGET, at=0.0, records=1, steps=(step,))
    assert not request.erased
    told = statement(request, [], ended=1.0, verification={})
    assert (told["erased"], told["standing"]) == (False, 1)
    assert any("cannot be reached" in line and "1 message" in line for line in _summary(request))


def test_what_is_kept_and_no_answer_is_no_evidence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = encode(Contribute(federation=32 * "a", number=1, rank=2, packed=b"x")).hex()
    (tmp_path / "answers.json").write_text(json.dumps({"host": "lm", "answers": [other]}))
    with pytest.raises(StoreError, match="does not hold what a party signed"):
        asked(run_in(tmp_path), tmp_path)
    (tmp_path / "answers.json").write_text('{"host": "lm", "answers": []}')
    ca = tmp_path / "ca.pem"
    ca.write_text("any")
    assert main(["forget", "verify", str(tmp_path / "answers.json"), "--ca", str(ca)]) == 0
    assert "nothing is signed in it" in capsys.readouterr().out
    (tmp_path / "answers.json").write_text('{"answers": ["00"]}')
    with pytest.raises(StoreError, match="does not hold what a party signed"):
        asked(run_in(tmp_path), tmp_path)


async def test_only_what_trials_gave_is_named_and_only_requests_not_made_now(
    tmp_path: Path,
) -> None:
    run = run_in(tmp_path)
    gave = Contribute(federation="ef" * 16, number=2, rank=2, packed=b"x")
    kept, gone = Ask(chat=user("stays")), Ask(chat=user("Anna"))
    ledger, network = run.folder / "ledger.sqlite", run.folder / "network.sqlite"
    assert not askable(run, "large")
    await record(ledger, "aa", ("item", gave), ("item", kept))
    await record(network, "large/12345678", (NAME, gone), (OTHER, kept), keep="digest")
    await record(network, "another/12345678", (32 * "4", gone), keep="digest")
    assert askable(run, "large")
    assert held_of(run, "large", {"bb"}) == HeldElsewhere()
    held = held_of(run, "large", {"aa"})
    assert held.federations == (InFederation(federation="ef" * 16, rounds=(2,)),)
    keep_names(tmp_path / "names", held)
    assert asked(run, tmp_path)[0] is StepState.OPEN  # it has no certificate to be asked by
    names = json.loads((tmp_path / "names").read_text())
    assert names["requests"] == [NAME]
    assert "Anna" not in str(names)
    await record(network, "large/87654321", (32 * "5", gone), keep="digest")
    asked(run, tmp_path)
    assert json.loads((tmp_path / "names").read_text()) == names, "whoever asks again asks the same"


@pytest.mark.parametrize(
    "large",
    ['kind = "party"\nurl = "http://127.0.0.1:1"\n', 'kind = "scripted"\nreplies = {a = "b"}\n'],
)
async def test_whose_answer_could_not_be_checked_is_not_asked(tmp_path: Path, large: str) -> None:
    run = run_in(tmp_path, large)
    network = run.folder / "network.sqlite"
    await record(network, "large/12345678", (NAME, Ask(chat=user("a"))), keep="digest")
    assert not askable(run, "large")


def test_what_is_to_be_shredded_of_a_record_that_is_gone_was_in_it(tmp_path: Path) -> None:
    """The network's record was deleted after the party had signed: no crash, and no empty one begun."""
    run, names = run_in(tmp_path), tmp_path / "names.json"
    keep_names(names, HeldElsewhere(requests=(NAME,)))
    told = ask_party(
        run, "large", forget=FORGET, until=2e9, names=names, answers=signed(tmp_path, DELETED),
        say=pytest.fail,
    )  # fmt: skip
    assert told.state is StepState.DONE
    assert not names.exists()
    assert not (run.folder / "network.sqlite").exists()
