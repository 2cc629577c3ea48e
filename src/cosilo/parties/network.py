"""How this machine's engines reach those of others, and are reached: one TOML file, alike for owners
and helper.

    listen, name, ports                where links are listened for, and what others connect to
    ca, cert, key                      a host's certificate, for the name that others connect to
    client_cert, client_key            a client's, for connecting to others
    lm_owner, data_owner, helper       the names that the others' client certificates bear
    hosts                              where each of the others is connected to, by these names
    helper_at                          HOST:PORT of the helper, for owners
    serve, owners, runs, idle_s        where the helper listens for owners, whom, and how much it serves
    step_s, silent_s                   how long it waits
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cosilo.boundary.transports import tls
from cosilo.engines.spu.helper import Helper, Listens, Where
from cosilo.engines.spu.run import Deadlines
from cosilo.errors import ConfigError
from cosilo.tables import read


@dataclass(frozen=True, kw_only=True)
class JointNetwork:
    """A network file, as read. Its paths start beside it.

    Attributes:
        listen: the address that links are listened for at.
        name: what others connect to: the name in `cert`.
        ports: the first and the last that links may come in at; any, when empty. A run of three
            parties takes two on each machine, a run of two one.
        lm_owner, data_owner, helper: names in the client certificates of the others; a host knows its
            clients by their own.
        hosts: the host where each of the others is connected to, by the name in its client certificate;
            what they say themselves must be that. The helper's is that of `helper_at`, when left out.
        helper_at: HOST:PORT.
        serve: HOST:PORT that a helper listens at for owners.
        owners: the names of those that a helper serves.
        runs: that a helper computes at the same time.
        idle_s: how long a run at a helper may be asked for nothing.
        step_s: how long a helper's step may take; a host says it in its [joint], a data owner by its
            strategy's options.
        silent_s: how long a helper waits for a party that says nothing.
    """

    ca: Path
    cert: Path
    key: Path
    client_cert: Path
    client_key: Path
    name: str
    listen: str = "0.0.0.0"
    ports: tuple[int, ...] = ()
    lm_owner: str = "lm-owner"
    data_owner: str = "data-owner"
    helper: str = "helper"
    hosts: Mapping[str, str] = field(default_factory=dict)
    helper_at: str = ""
    serve: str = ""
    owners: tuple[str, ...] = ()
    runs: int = 4
    idle_s: float = 600.0
    step_s: float = 600.0
    silent_s: float = 60.0

    def __post_init__(self) -> None:
        if self.ports and not (len(self.ports) == 2 and 0 < self.ports[0] <= self.ports[1] < 65536):
            raise ValueError(f"ports = {list(self.ports)!r} is no first and last port")
        if self.runs < 1:
            raise ValueError("runs must be 1 or more")
        for name in ("idle_s", "step_s", "silent_s"):
            if not 0 < getattr(self, name) < 1e9:
                raise ValueError(f"{name} must be a positive number of seconds")

    @classmethod
    def load(cls, path: Path) -> JointNetwork:
        """The file.

        Raises:
            ConfigError: it cannot be read, or something in it cannot be.
        """
        try:
            table = tomllib.loads(path.read_bytes().decode())
        except OSError as error:
            raise ConfigError(f"cannot read {str(path)!r}: {error.strerror}") from None
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path.name}: not TOML: {error}") from None
        for key in ("ca", "cert", "key", "client_cert", "client_key"):
            if isinstance(table.get(key), str):
                table[key] = str(path.absolute().parent / table[key])
        return read(cls, table, where=path.name)

    @property
    def listens(self) -> Listens:
        """Where links are listened for, with the certificates.

        Raises:
            ConfigError: a file cannot be used.
        """
        helper = {self.helper: where[0]} if (where := self.helper_address) else {}
        return Listens(
            self.listen,
            self.name,
            (self.ports[0], self.ports[1]) if self.ports else None,
            tls.answering(self.ca, self.cert, self.key),
            tls.asking(self.ca, self.client_cert, self.client_key),
            tls.client_of,
            {**helper, **self.hosts},
        )

    @property
    def helper_address(self) -> Where | None:
        """Where the helper listens for owners; None where none is named.

        Raises:
            ConfigError: it is no HOST:PORT.
        """
        return address(self.helper_at, "helper_at") if self.helper_at else None

    def served(self) -> tuple[Helper, Where]:
        """The helper that this file describes, and where it listens.

        Raises:
            ConfigError: it says not where, or for whom.
        """
        if not self.serve or len(self.owners) < 2:
            raise ConfigError(
                "a helper needs serve = 'HOST:PORT', and owners = [two names or more] that client "
                "certificates bear"
            )
        if lacking := sorted(set(self.owners) - set(self.hosts)):
            raise ConfigError(
                f"a helper connects to its owners: hosts says not where to {', '.join(lacking)}"
            )
        owners = frozenset(self.owners)
        made = Helper(
            self.listens,
            owners=owners,
            most=self.runs,
            idle_s=self.idle_s,
            deadlines=Deadlines(step_s=self.step_s, silent_s=self.silent_s),
        )
        return made, address(self.serve, "serve")


def address(text: str, key: str) -> Where:
    """The host and port that `text` names.

    Raises:
        ConfigError: it names none.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"{key} = {text!r} is no HOST:PORT")
    return host, int(port)
