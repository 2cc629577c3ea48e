"""`cosilo fit` on a tiny model: measured, dropped, healed, written, measured again; and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tiny_lm
from cosilo.cli import main
from cosilo.cli.fit import memory_size
from cosilo.errors import ConfigError
from cosilo.lineage.beside import fitted_in
from cosilo.models.fit import fitting
from cosilo.models.fit.decode_speed import Speed
from cosilo.models.fit.fitting import FitTarget, fit
from cosilo.models.fit.sizing import SizeLimits
from cosilo.models.gguf.llamacpp import llamacpp
from cosilo.models.white_box.lm import torch_lm
from cosilo.types import Sampling, user

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time

LAYERS = 4


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_lm.gguf(tmp_path_factory.mktemp("source") / "tiny.gguf", layers=LAYERS)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.jsonl"
    line = json.dumps({"text": "the refund is about the delivery and the billing of " * 4})
    path.write_text("\n".join([line] * 20))
    return path


def layers_cost(path: Path, *, threads: int, context: int) -> Speed:
    """A machine on which each layer takes 2 ms: the tiny model's own times are noise."""
    depth = len(torch_lm(path=path).module.model.layers)
    return Speed(1 + 2.0 * depth, 100_000_000)


def arguments(source: Path, out: Path, text: Path, *more: str) -> list[str]:
    given = ["fit", str(source), "--out", str(out), "--text", str(text), "--steps", "4"]
    return [*given, "--length", "16", "--context", "128", "--threads", "1", *more]


def test_the_whole_model_stays_where_the_limits_allow(
    source: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With real measurements, in processes of their own."""
    out = tmp_path / "out"
    limits = ("--ms-per-token", "1000", "--memory", "2GB")
    assert main(arguments(source, out, text, *limits)) == 0
    said = capsys.readouterr().out
    assert "4 of 4 layers, Q8_0" in said
    assert "within the limits of 1000 ms and 2,000 MB" in said
    assert f'path = "{out / "model.gguf"}"' in said
    assert fitted_in(out) == sorted(out.iterdir()), "all that is to go where a text was forgotten"


async def test_layers_go_and_what_is_built_answers(
    source: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "measure", layers_cost)
    wanted = FitTarget(
        source=source,
        limits=SizeLimits(5.5, 10**9),
        out=tmp_path / "out",
        text=(text,),
        threads=1,
        context=128,
        steps=30,
        length=16,
        learning_rate=1e-2,
    )
    said: list[str] = []
    built = fit(wanted, say=said.append)
    assert (built.size.layers, built.of_layers, len(built.dropped)) == (2, LAYERS, 2)
    assert built.speed == Speed(5.0, 100_000_000)
    assert built.rank is None
    small, folder = llamacpp(path=built.gguf, n_ctx=128, threads=1), torch_lm(path=built.folder)
    try:
        reply = await small.generate(user("hello"), Sampling(max_tokens=4))
        assert reply.completion_tokens >= 1
        assert len(folder.module.model.layers) == 2
    finally:
        await small.close()

    again = fit(wanted, say=said.append)
    assert (again.healed, again.dropped) == (built.healed, built.dropped)
    assert sum("measuring which" in line for line in said) == 1, "the second run remembers"
    with pytest.raises(Exception, match="work of another fit"):
        fit(FitTarget(**{**vars(wanted), "context": 64}), say=said.append)


def test_limits_that_cannot_be_met_are_refused_with_the_nearest(
    source: Path,
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(fitting, "measure", layers_cost)
    limits = ("--ms-per-token", "2", "--memory", "1GB")
    assert main(arguments(source, tmp_path / "out", text, *limits)) == 2
    said = capsys.readouterr().err
    assert "no model of 1 layers or more stays within 2 ms per token" in said
    assert "--ms-per-token 3.3 --memory 1000MB would do" in said
    assert not (tmp_path / "out" / "model.gguf").exists()


@pytest.mark.parametrize(
    ("more", "wrong"),
    [
        (("--ms-per-token", "0", "--memory", "1GB"), "--ms-per-token must be above 0"),
        (("--ms-per-token", "5", "--memory", "much"), "such as 800MB or 1GB, not 'much'"),
        (("--ms-per-token", "5", "--memory", "1GB", "--length", "2"), "--length must be 8"),
        (("--ms-per-token", "5", "--memory", "1GB", "--length", "500"), "more text"),
    ],
)
def test_what_makes_no_sense_is_refused(
    source: Path,
    text: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    wrong: str,
) -> None:
    assert main(arguments(source, tmp_path / "out", text, *more)) == 2
    assert wrong in capsys.readouterr().err


def test_only_gguf_files_and_readable_text_are_taken(
    source: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = ("--ms-per-token", "5", "--memory", "1GB")
    assert main(arguments(text, tmp_path / "out", text, *limits)) == 2
    assert "is no GGUF file" in capsys.readouterr().err
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"other": "secret words"}')
    assert main(arguments(source, tmp_path / "out", bad, *limits)) == 2
    said = capsys.readouterr().err
    assert 'a key "text"' in said
    assert "secret words" not in said


def test_sizes_are_read_with_their_units() -> None:
    assert memory_size("1GB") == 10**9
    assert memory_size("1.5 gb") == 1_500_000_000
    assert memory_size("512MiB") == 512 * 2**20
    with pytest.raises(ConfigError, match="not '0MB'"):
        memory_size("0MB")
