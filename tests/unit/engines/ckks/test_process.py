"""Keys and heads in processes of their own: what goes wrong there stays there."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from cosilo.engines.ckks import process as processes
from cosilo.engines.ckks.process import CkksProcess, HomeKeys, HostedHead
from cosilo.engines.ckks.work import Decrypt, Encrypt, Logits, packed
from cosilo.errors import ConfigError, ModelError, RejectedError
from private_heads import needs_tenseal

WEIGHTS = np.arange(12.0).reshape(3, 4)
BIAS = np.array([0.5, 0.0, -0.5])
VECTOR = np.array([[0.5, -0.5, 0.5, 0.5]])


@needs_tenseal
def test_a_vector_goes_through_both_processes_and_home_again() -> None:
    keys = HomeKeys(4, 3)
    head = HostedHead(WEIGHTS, BIAS, keys.public, keys.turning)
    found = keys.decrypt(head.logits(keys.encrypt(VECTOR)), 1)
    np.testing.assert_allclose(found, VECTOR @ WEIGHTS.T + BIAS, atol=1e-6)
    assert keys.cpu_seconds > 0
    assert head.cpu_seconds > 0
    with pytest.raises(RejectedError, match="not 1 to"):
        head.logits(keys.encrypt(VECTOR), 0)

    # The one who computes has no key that reads, and the one who reads computes nothing.
    with pytest.raises(RejectedError, match="out of turn"):
        head._process.ask(Decrypt(b"", 1))
    with pytest.raises(RejectedError, match="out of turn"):
        head._process.ask(Encrypt(packed(VECTOR)))
    with pytest.raises(RejectedError, match="out of turn"):
        keys._process.ask(Logits(b"", 1))

    # A refusal ends nothing; the process's end is a clear error, and stays one.
    with pytest.raises(RejectedError):
        head.logits(b"no ciphertext")
    assert head.alive
    os.kill(head._process._process.pid, signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(ModelError, match="has ended"):
            head.logits(keys.encrypt(VECTOR))
    assert not head.alive
    assert keys.alive
    keys.close()
    keys.close()
    assert not keys.alive
    with pytest.raises(ModelError, match="has ended"):
        keys.encrypt(VECTOR)


@needs_tenseal
def test_a_process_that_takes_too_long_or_too_much_is_ended() -> None:
    keys = HomeKeys(4, 3)
    slow = HostedHead(WEIGHTS, BIAS, keys.public, keys.turning)
    slow._process._seconds = 1e-4
    with pytest.raises(ModelError, match="has ended"):
        slow.logits(keys.encrypt(VECTOR))
    with pytest.raises((ModelError, RejectedError)):
        HostedHead(WEIGHTS, BIAS, keys.public, keys.turning, memory=1 << 26)


@needs_tenseal
def test_its_limits_cannot_be_lifted_from_within() -> None:
    keys = HomeKeys(4, 3)
    limits = Path(f"/proc/{keys._process._process.pid}/limits").read_text()
    for name, most in (("Max address space", processes.MEMORY), ("Max core file size", 0)):
        assert re.search(rf"^{name} +{most} +{most} ", limits, re.MULTILINE)


@pytest.mark.parametrize(
    "said", [r"\377\377\377\377\377\377\377\377", r"\000\000\000\000\000\000\000\001\301"]
)
def test_a_process_that_answers_what_is_no_answer_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    """As one does that a ciphertext has taken over: a length without end, and no message of ours."""
    taken_over = tmp_path / "python"
    taken_over.write_text(f"#!/bin/sh\nprintf '{said}'\nexec sleep 60\n")
    taken_over.chmod(0o700)
    monkeypatch.setattr(processes, "PACKAGE", "numpy")
    monkeypatch.setattr(sys, "executable", str(taken_over))
    process = CkksProcess()
    with pytest.raises(ModelError, match="has ended"):
        process.ask(Logits(b"", 1))
    assert not process.alive


def test_without_the_package_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PACKAGE", "tenseal_that_is_not_there")
    with pytest.raises(ConfigError, match=r"pip install 'cosilo\[ckks\]'"):
        HomeKeys(4, 3)


def test_a_head_that_does_not_fit_is_refused_before_a_process_starts() -> None:
    with pytest.raises(ConfigError, match="does not fit"):
        HomeKeys(4000, 98)
