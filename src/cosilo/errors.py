"""Every error a caller may want to catch.

CosiloError                     exit code 1
├── ConfigError                 2: the run cannot start; fix the file or the flag
│   └── DataError               2: a data file is not what the plan says it is
├── CapabilityError             2: a model shows less than the strategy needs
├── CatalogError                2: a model file is missing, or is not the file it claims to be
├── BoundaryError               a message was stopped on its way out
│   ├── UndeclaredMessageError
│   ├── UnexpectedReplyError
│   ├── BudgetExceededError     3: results so far are kept
│   │   ├── RequestBudgetError  this request alone may cost too much; others may not
│   │   └── PrivacyBudgetError  the owner's records would have spent more ε than they may
│   ├── LocalOnlyError          the request may not leave, so nothing was sent
│   └── PrivacyError            a guard was in doubt, so nothing was sent
│       └── UnprotectableError  this request holds what cannot be protected here; another may not
├── ModelError                  a model or its endpoint failed
│   ├── UnreachableError        worth retrying: refused, reset, timed out, 429, 5xx
│   ├── RejectedError           not worth retrying: 400, 401, 403, 404, a reply that is no reply
│   ├── UnknownThreadError      the large model's owner has no such thread (any more)
│   ├── UnknownAdapterError     it has no such adapter of this client's (any more)
│   ├── UnknownKeysError        it has no such keys of this client's (any more)
│   ├── EngineError             a joint computation ended without a result
│   ├── FederationError         a federation ended without a result: too few owners, or good updates
│   ├── UnreadableError         most replies hold no answer, so no more was asked for
│   └── OfflineError            `--offline` and the answer is not recorded
└── StoreError                  4: the run's files cannot be read or written
    └── RunBusyError            4: another process works on this run

No error text may hold private text: say which item and which column, never what stood there.
"""

from __future__ import annotations

from typing import ClassVar


class CosiloError(Exception):
    """Base class; the command line prints it without a traceback and exits with `exit_code`.

    Attributes:
        worked: how many of the requests that left the LM may have worked on, and bill, though they
            came to this; None where nobody knows.
        quoted: the text is the words of a party in other hands, which may repeat what it was sent: they
            go to whoever asked, and into no log.
    """

    exit_code: ClassVar[int] = 1
    worked: int | None = 0
    quoted: bool = False

    @property
    def logged(self) -> str:
        """The text as a log may have it."""
        return "(words of the other party)" if self.quoted else str(self)


def of_point(name: str, why: object) -> str:
    """What a point of this name came to, as a line: an error that begins with the name, as those of a
    strategy do, says it already."""
    text = str(why)
    return text if text.startswith((f"{name} ", f"{name}: ")) else f"{name}: {text}"


class ConfigError(CosiloError):
    exit_code = 2


class DataError(ConfigError): ...


class CapabilityError(CosiloError):
    exit_code = 2


class CatalogError(CosiloError):
    exit_code = 2


class BoundaryError(CosiloError): ...


class UndeclaredMessageError(BoundaryError): ...


class UnexpectedReplyError(BoundaryError):
    worked: int | None = None


class BudgetExceededError(BoundaryError):
    exit_code = 3


class RequestBudgetError(BudgetExceededError): ...


class PrivacyBudgetError(BudgetExceededError): ...


class LocalOnlyError(BoundaryError): ...


class PrivacyError(BoundaryError): ...


class UnprotectableError(PrivacyError):
    """What was asked cannot be protected as it is, and would not be the next time; nothing was sent."""


class ModelError(CosiloError):
    worked: int | None = None


class UnreachableError(ModelError):
    """The model or endpoint did not answer; trying again later may work.

    Attributes:
    status: the HTTP status the endpoint answered with in the end; 0 for none.
    retry_after: how many seconds it asks to be left alone; 0 where it does not say.
    """

    def __init__(
        self,
        message: str = "",
        *,
        worked: int | None = None,
        status: int = 0,
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.worked = worked
        self.status = status
        self.retry_after = retry_after


class RejectedError(ModelError):
    """The model or endpoint refused the request; the same request would be refused again.

    Attributes:
    everything: any request would be refused like this one (a wrong key, an unknown model).
    status: the HTTP status of the refusal; 0 where it was none.
    code, param: the error's name and the field it is about, as OpenAI calls them; empty for others.
    """

    def __init__(
        self,
        message: str,
        *,
        everything: bool = False,
        worked: int | None = 0,
        status: int = 0,
        code: str = "",
        param: str = "",
    ) -> None:
        super().__init__(message)
        self.everything = everything
        self.worked = worked
        self.status = status
        self.code = code
        self.param = param


class UnknownThreadError(ModelError):
    worked: int | None = 0


class EngineError(ModelError):
    worked: int | None = 0


class FederationError(ModelError):
    worked: int | None = 0


class UnknownAdapterError(ModelError):
    worked: int | None = 0


class UnknownKeysError(ModelError):
    worked: int | None = 0


class UnreadableError(ModelError): ...


class OfflineError(ModelError):
    worked: int | None = 0


class StoreError(CosiloError):
    exit_code = 4
    worked: int | None = None


class RunBusyError(StoreError): ...
