"""The network file: what is said in it, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosilo.errors import ConfigError, EngineError
from cosilo.host.certificates import make_certificates
from cosilo.parties.network import JointNetwork, address

FILE = """\
name = "localhost"
ca = "certs/ca.pem"
cert = "certs/host-localhost.pem"
key = "certs/host-localhost.key"
client_cert = "certs/client-helper.pem"
client_key = "certs/client-helper.key"
hosts = { bank = "bank.example", clinic = "clinic.example" }
"""


def written(folder: Path, more: str = "") -> Path:
    path = folder / "network.toml"
    path.write_text(FILE + more)
    return path


def test_paths_begin_beside_the_file_and_the_helper_is_made_of_it(tmp_path: Path) -> None:
    make_certificates(tmp_path / "certs", hosts=["localhost"], clients=["helper"])
    more = 'ports = [8500, 8502]\nserve = "127.0.0.1:8600"\nowners = ["bank", "clinic"]\n'
    more += "step_s = 5\nsilent_s = 4\n"
    network = JointNetwork.load(written(tmp_path, more + 'helper_at = "far:8600"\n'))
    assert network.ca == tmp_path / "certs" / "ca.pem"
    listens = network.listens
    assert (listens.name, listens.ports) == ("localhost", (8500, 8502))
    assert listens.accept is not None
    assert network.helper_address == ("far", 8600)
    assert listens.reached(("bank.example", 5), "bank").server_name == "bank.example"
    assert listens.reached(("far", 5), "helper").address == ("far", 5)
    for at, name in ((("clinic.example", 5), "bank"), (("10.0.0.1", 22), "stranger")):
        with pytest.raises(EngineError, match="not the one known of it"):
            listens.reached(at, name)
    helper, at = network.served()
    assert at == ("127.0.0.1", 8600)
    assert (helper._deadlines.step_s, helper._deadlines.silent_s) == (5.0, 4.0)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("ports = [8500]\n", "no first and last port"),
        ("ports = [8502, 8500]\n", "no first and last port"),
        ("runs = 0\n", "runs must be 1 or more"),
        ("idle_s = nan\n", "idle_s must be a positive number"),
        ("step_s = 0\n", "step_s must be a positive number"),
        ('helpr = "x"\n', "did you mean 'helper'"),
        ("listen = 5\n", "listen"),
        ("x = [\n", "not TOML"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        JointNetwork.load(written(tmp_path, more))


def test_a_file_or_a_certificate_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*network.toml"):
        JointNetwork.load(tmp_path / "network.toml")
    network = JointNetwork.load(written(tmp_path))
    with pytest.raises(ConfigError, match=r"cannot read .*\.(key|pem)"):
        network.listens  # noqa: B018
    with pytest.raises(ConfigError, match="a helper needs serve"):
        network.served()
    assert network.helper_address is None


@pytest.mark.parametrize(
    "text", ["8600", "host:", "host:0", "host:70000", ":8600", "host:x", "host:²"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no HOST:PORT"):
        address(text, "helper_at")


def test_a_helper_knows_where_its_owners_are(tmp_path: Path) -> None:
    make_certificates(tmp_path / "certs", hosts=["localhost"], clients=["helper"])
    more = 'serve = "127.0.0.1:8600"\nowners = ["bank", "town"]\n'
    with pytest.raises(ConfigError, match="hosts says not where to town"):
        JointNetwork.load(written(tmp_path, more)).served()
