"""Every error that this package raises on purpose.

One base class, so that ``except FheError`` is enough. A message says what went wrong, where, what was
expected, what came, and what to do next; the parts are attributes too, for programs that read them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Where:
    """The place in a model that an error is about. All parts are optional.

    ``node`` is the ONNX node's name, or its first output where it has none.
    """

    node: str | None = None
    op: str | None = None
    domain: str | None = None
    opset: int | None = None
    pack: str | None = None

    def __str__(self) -> str:
        parts = []
        if self.node:
            parts.append(f"node {self.node!r}")
        if self.op:
            domain = f"{self.domain}." if self.domain else ""
            parts.append(f"op {domain}{self.op}")
        if self.opset is not None:
            parts.append(f"opset {self.opset}")
        if self.pack:
            parts.append(f"pack {self.pack!r}")
        return ", ".join(parts)


class FheError(Exception):
    """The base of all errors here.

    Args:
        problem: what is wrong, one sentence without a full stop.
        where: the node, op, domain, opset and pack concerned.
        expected: what would have been right.
        got: what came instead.
        fix: what to run or change next, an imperative sentence without a full stop.
    """

    def __init__(
        self,
        problem: str,
        *,
        where: Where | None = None,
        expected: str | None = None,
        got: str | None = None,
        fix: str | None = None,
    ) -> None:
        self.problem = problem
        self.where = where or Where()
        self.expected = expected
        self.got = got
        self.fix = fix
        super().__init__(self._message())

    def _message(self) -> str:
        place = str(self.where)
        head = f"{place}: {self.problem}" if place else self.problem
        details = [
            f"{label}: {text}"
            for label, text in (("expected", self.expected), ("got", self.got))
            if text
        ]
        if details:
            head += f" ({'; '.join(details)})"
        if self.fix:
            head += f". {self.fix[0].upper()}{self.fix[1:]}"
        return head

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive BaseException's own pickling (multiprocessing, pytest-xdist).
        return _rebuild, (type(self), self.problem, self.__dict__)


def _rebuild(cls: type[FheError], problem: str, state: dict[str, object]) -> FheError:
    error = cls.__new__(cls)
    error.__dict__.update(state)
    Exception.__init__(error, error._message())
    return error


class ModelError(FheError):
    """The ONNX model is missing, broken or invalid."""


class UnsupportedOpError(FheError):
    """No installed pack implements an op, or not at this version, or not in this way."""


class PackError(FheError):
    """An operator pack failed to load, clashes with another, or breaks the registry's rules."""


class SignatureError(FheError):
    """A registered function's signature breaks the convention or contradicts the ONNX schema."""


class CalibrationError(FheError):
    """The calibration data cannot be used with this model."""


class InputError(FheError):
    """The data given for inference cannot be used with this model."""


class PlanError(FheError):
    """The quantization settings or the quantization plan cannot be used."""


class CompilationError(FheError):
    """The model cannot be compiled to an encrypted circuit."""


class ProcessError(FheError):
    """This process cannot compute on encrypted data: it was forked from one that had begun to."""


class ArtifactError(FheError):
    """A saved model, client or server cannot be loaded."""


class ResourceError(FheError, MemoryError):
    """There is not enough memory. That is no verdict on the model: elsewhere it may run."""


class WrapAroundWarning(UserWarning):
    """Values left an accumulator and came out at its other end: the answers of these samples are wrong."""
