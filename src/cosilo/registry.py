"""One registry class for everything a user can name in a plan.

A plug-in package adds its own through the entry-point group `cosilo.<kind>`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from cosilo.errors import ConfigError

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., object])


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """The text for a name that is not known: what it was, the nearest one, all of them."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"no {what} named {name!r}{hint} (known: {', '.join(names)})"


@dataclass(frozen=True)
class Loads:
    """What something loads that does not come with Cosilo's core.

    Attributes:
        models: names of Cosilo's catalog of model files.
        packages: optional packages, as they are imported: "sklearn", not "scikit-learn".
    """

    models: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    def __or__(self, other: Loads) -> Loads:
        """Both together, each name once, in order."""
        return Loads(
            tuple(dict.fromkeys(self.models + other.models)),
            tuple(dict.fromkeys(self.packages + other.packages)),
        )


class Registry(Generic[T]):
    """Factories by name.

    Args:
        kind: singular noun for messages and for the entry-point group, e.g. "strategy".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._factories: dict[str, Callable[..., T]] = {}
        self._loads: dict[str, Loads | Callable[..., Loads]] = {}
        self._plugins_loaded = False

    def register(
        self, name: str, *, loads: Loads | Callable[..., Loads] = Loads()
    ) -> Callable[[F], F]:
        """Adds what it decorates under `name`.

        Args:
            loads: the model files and optional packages that it uses when it is made or at work; a
                function where options decide, which takes those options under their names. A run that
                lacks one of them is refused before it starts.
        """

        def add(factory: F) -> F:
            if name in self._factories:
                raise ConfigError(f"{self.kind} {name!r} is registered twice")
            self._factories[name] = factory  # type: ignore[assignment]
            self._loads[name] = loads
            return factory

        return add

    def get(self, name: str) -> Callable[..., T]:
        """The factory called `name`.

        Raises:
            ConfigError: no such name; the message gives the nearest.
        """
        self._load_plugins()
        try:
            return self._factories[name]
        except KeyError:
            raise ConfigError(unknown(self.kind, name, self._factories)) from None

    def create(self, name: str, /, **options: object) -> T:
        """Build `name` with `options`.

        Raises:
            ConfigError: no such name, an option it does not take, or one it refuses.
        """
        factory = self.get(name)
        accepted = inspect.signature(factory).parameters
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in accepted.values()):
            for option in options:
                if option not in accepted:
                    what = f"option of {self.kind} {name!r}"
                    raise ConfigError(unknown(what, option, accepted))
        try:
            return factory(**options)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{self.kind} {name!r}: {error}") from error

    def loads(self, name: str, options: Mapping[str, object] | None = None) -> Loads:
        """What `name` loads when it is made with `options`, its defaults for the others.

        Raises:
            ConfigError: no such name.
        """
        factory = self.get(name)
        stated = self._loads.get(name, Loads())
        if isinstance(stated, Loads):
            return stated
        taken = inspect.signature(factory).parameters
        given = options or {}
        return stated(
            **{
                key: given.get(key, taken[key].default)
                for key in inspect.signature(stated).parameters
            }
        )

    def names(self) -> list[str]:
        self._load_plugins()
        return sorted(self._factories)

    def _load_plugins(self) -> None:
        if self._plugins_loaded:
            return
        self._plugins_loaded = True
        for point in entry_points(group=f"cosilo.{self.kind}"):
            if point.name not in self._factories:
                self._factories[point.name] = point.load()
