"""Keys cannot be guessed, forged with the database alone, or told apart by time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cosilo.cli import main
from cosilo.errors import ConfigError
from cosilo.gateway.accounts import keys
from cosilo.gateway.accounts.keys import (
    derive,
    hash_bearer,
    id_of,
    make_bearer,
    matches,
    read_secret,
)


def test_bearers_are_long_random_and_say_their_id() -> None:
    made = [make_bearer() for _ in range(1000)]
    assert len({bearer for _, bearer in made}) == len({id for id, _ in made}) == 1000
    for id, bearer in made:
        assert id_of(bearer) == id
        assert len(bearer.split("_", 2)[2]) == 43  # 256 bits in base64


@pytest.mark.parametrize("text", ["", "cosilo_", "cosilo__x", "cosilo_ab", "sk_ab_x", "cosilo_é_x"])
def test_what_is_no_bearer_has_no_id(text: str) -> None:
    assert id_of(text) == ""


def test_the_hash_depends_on_the_gateways_secret_and_on_every_character() -> None:
    _, bearer = make_bearer()
    stored = hash_bearer(b"p" * 32, bearer)
    assert stored != hash_bearer(b"q" * 32, bearer)
    for i in range(len(bearer)):
        other = bearer[:i] + ("a" if bearer[i] != "a" else "b") + bearer[i + 1 :]
        assert not matches(stored, hash_bearer(b"p" * 32, other))
    assert matches(stored, hash_bearer(b"p" * 32, bearer))


def test_an_unknown_key_is_compared_like_a_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = keys.hmac.compare_digest

    def watch(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return real(a, b)

    monkeypatch.setattr(keys.hmac, "compare_digest", watch)
    presented = hash_bearer(b"p" * 32, "x")
    assert not matches(None, presented)
    assert not matches(bytes(32), presented)
    assert matches(presented, presented)
    assert [len(a) for a, _ in compared] == [32, 32, 32]
    assert not matches(None, bytes(32))  # the stand-in is no key


def test_a_very_long_text_is_not_hashed_whole() -> None:
    assert hash_bearer(b"p" * 32, "x" * 10**7) == hash_bearer(b"p" * 32, "x" * 200)


def test_each_purpose_has_a_key_of_its_own() -> None:
    assert len({derive(b"s" * 32, purpose) for purpose in ("keys", "ledger", "sessions")}) == 3


def test_the_secret_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    secret = read_secret(path, make=True)
    assert len(secret) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_secret(path, make=True) == secret
    assert [f.name for f in tmp_path.iterdir()] == ["secret"]


def test_the_environment_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_secret(tmp_path / "secret", make=True)
    monkeypatch.setenv("COSILO_SECRET", (tmp_path / "secret").read_text().strip())
    assert read_secret(tmp_path / "none", make=False) == read_secret(tmp_path / "x", make=True)
    assert not (tmp_path / "x").exists()
    monkeypatch.setenv("COSILO_SECRET", "c2hvcnQ=")
    with pytest.raises(ConfigError, match="5 bytes"):
        read_secret(tmp_path / "none", make=False)


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    read_secret(path, make=True)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_secret(path, make=False)


@pytest.mark.parametrize(("text", "what"), [(b"not base64!", "base64"), (b"", "0 bytes")])
def test_a_broken_secret_is_named_not_shown(tmp_path: Path, text: bytes, what: str) -> None:
    path = tmp_path / "secret"
    path.touch(0o600)
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=what) as caught:
        read_secret(path, make=True)
    assert "not base64!" not in str(caught.value)
    with pytest.raises(ConfigError, match="No such file"):
        read_secret(tmp_path / "none", make=False)


# The command line.


def test_create_list_revoke(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ["--store", str(tmp_path / "store")]
    create = ["keys", "create", "ward [7]", "--usd", "5", "--per", "day", "--point", "private"]
    assert main([*create, "--requests-per-minute", "60", "--expires", "90d", *store]) == 0
    shown = capsys.readouterr()
    bearer = shown.out.strip()
    id = id_of(bearer)
    assert bearer not in shown.err
    assert id in shown.err
    assert main(["keys", "list", *store]) == 0
    listed = capsys.readouterr().out
    assert id in listed
    assert "ward [7]" in listed
    assert bearer not in listed
    assert main(["keys", "revoke", id, *store]) == 0
    assert main(["keys", "list", *store]) == 0
    assert "revoked" in capsys.readouterr().out
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o700
    for file in (tmp_path / "store").rglob("*"):
        assert file.stat().st_mode & 0o077 == 0, file


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["create", "x", "--usd", "-1"], "amount"),
        (["create", "x", "--usd", "nan"], "amount"),
        (["create", "x", "--usd", "inf"], "amount"),
        (["create", "x", "--usd", "five"], "'five' is not an amount"),
        (["create", "x", "--usd", "1e-12"], "a billionth"),
        (["create", "x", "--epsilon", "-0.5"], "amount"),
        (["create", "x", "--tokens", "1.5"], "'1.5' is not a count"),
        (["create", "x", "--tokens", "-1"], "'-1' is not a count"),
        (["create", "x", "--entities", "many"], "'many' is not a count"),
        (["create", "x", "--per", "day"], "--per day counts --usd, --tokens and --entities"),
        (["create", "x", "--expires", "0d"], "90d"),
        (["create", "x", "--expires", "soon"], "90d"),
        (["create", "x", "--expires", "2020-01-01"], "past"),
        (["create", "x", "--per", "week"], "invalid choice"),
        (["list"], "no gateway's store"),
        (["revoke", "abc"], "no gateway's store"),
        (["list", "--store", "mysql://x"], "'mysql' is not a store"),
    ],
)
def test_what_is_wrong_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    what: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["keys", *arguments]) == 2
    assert what in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_key_that_is_local_only_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ["--store", str(tmp_path / "store")]
    assert main(["keys", "create", "ward", "--local-only", *store]) == 0
    assert main(["keys", "list", *store]) == 0
    assert "local only" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["", "  ", "\n", "a\x00b", "a\x1b[31m", "x" * 101])
def test_a_name_that_nobody_can_read_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["keys", "create", name, "--store", str(tmp_path / "store")]) == 2
    assert "name" in capsys.readouterr().err


def test_a_name_in_use_is_refused_and_free_again_once_its_key_is_revoked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ["--store", str(tmp_path / "store")]
    assert main(["keys", "create", "ward", *store]) == 0
    first = id_of(capsys.readouterr().out.strip())
    assert main(["keys", "create", " ward ", *store]) == 2
    assert f"key {first} is called 'ward' already" in capsys.readouterr().err
    assert main(["keys", "revoke", "ward", *store]) == 0
    assert first in capsys.readouterr().out
    assert main(["keys", "create", "ward", *store]) == 0
    second = id_of(capsys.readouterr().out.strip())
    assert main(["keys", "revoke", "ward", *store]) == 0
    assert second in capsys.readouterr().out, "the one in use is meant"
    assert main(["keys", "revoke", "ward", *store]) == 2
    assert f"several keys are called 'ward'; say which: {', '.join(sorted((first, second)))}" in (
        capsys.readouterr().err
    )
    assert main(["keys", "revoke", first, *store]) == 0


def test_revoking_what_is_no_key_says_the_nearest_and_never_a_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ["--store", str(tmp_path / "store")]
    assert main(["keys", "create", "ward-7", *store]) == 0
    bearer = capsys.readouterr().out.strip()
    assert main(["keys", "revoke", "ward7", *store]) == 2
    assert "did you mean 'ward-7'?" in capsys.readouterr().err
    assert main(["keys", "revoke", "cosilo_other_secret", *store]) == 2
    assert "secret" not in capsys.readouterr().err
    assert main(["keys", "revoke", bearer, *store]) == 0
    assert bearer not in capsys.readouterr().out


GATEWAY = """
[models.lm]
kind = "scripted"
[[points]]
name = "private"
strategy = "large"
large = "lm"
"""


def test_a_point_that_is_not_served_is_refused_where_that_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, store = tmp_path / "gateway.toml", ["--store", str(tmp_path / "store")]
    file.write_text(GATEWAY)
    checked = ["--config", str(file), *store]
    assert main(["keys", "create", "a", "--point", "privat", *checked]) == 2
    assert "no point named 'privat'; did you mean 'private'?" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()
    assert main(["keys", "create", "a", "--point", "private", *checked]) == 0
    assert "note" not in capsys.readouterr().err
    assert main(["keys", "create", "b", "--point", "cosilo/private", *checked]) == 0
    assert main(["keys", "create", "c", "--point", "privat", *store]) == 0
    assert "whether there is a point 'privat' is not checked" in capsys.readouterr().err
    assert main(["keys", "list", *store]) == 0
    assert "only private" in capsys.readouterr().out


def test_a_key_is_made_in_the_store_that_the_file_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, here = tmp_path / "kept" / "gateway.toml", tmp_path / "here"
    file.parent.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    file.write_text(f"[store]\nurl = 'store'\n{GATEWAY}")
    assert main(["keys", "create", "a", "--config", str(file)]) == 0
    assert [*here.iterdir()] == []
    assert main(["keys", "list", "--store", str(file.parent / "store")]) == 0
    assert "a" in capsys.readouterr().out.split()
    other = str(tmp_path / "other")
    assert main(["keys", "create", "b", "--config", str(file), "--store", other]) == 0
    assert main(["keys", "list", "--store", other]) == 0
    assert "b" in capsys.readouterr().out.split()


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    path = os.fspath(tmp_path / "file" / "store")
    assert main(["keys", "create", "x", "--store", path]) == 2
    assert "cannot make" in capsys.readouterr().err
