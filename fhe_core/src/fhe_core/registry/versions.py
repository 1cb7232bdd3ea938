"""Which opsets a registration serves.

ONNX versions an operator only where it changes, and many changes touch nothing but type
constraints. So a registration serves its own schema version and the later ones that are called
alike, until the first that is not, or until its pack's next registration, or until the last opset
that it names itself.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from fhe_core.errors import SignatureError, Where
from fhe_core.registry.conformity import check_conformity, conforms
from fhe_core.registry.schema import (
    OpSchema,
    display_domain,
    history,
    is_known_domain,
    newest_opset,
    op_types,
)
from fhe_core.registry.signature import OpSignature

# The end of a range that serves the newest known opset, whatever it is.
OPEN = sys.maxsize


@dataclass(frozen=True, order=True)
class Span:
    """Opsets from ``first`` to ``last``, both included; `OPEN` is no end."""

    first: int
    last: int = OPEN

    def __contains__(self, opset: int) -> bool:
        return self.first <= opset <= self.last

    def __and__(self, other: Span) -> Span | None:
        first, last = max(self.first, other.first), min(self.last, other.last)
        return Span(first, last) if first <= last else None

    @property
    def until(self) -> int | None:
        """The last opset, or None for the newest known."""
        return None if self.last == OPEN else self.last

    def __str__(self) -> str:
        if self.last == OPEN:
            return f"opset {self.first} and later"
        return f"opset {self.first}" + (f"-{self.last}" if self.last > self.first else "")


def join(spans: Sequence[Span]) -> tuple[Span, ...]:
    """The same opsets in as few spans as possible, in order."""
    joined: list[Span] = []
    for span in sorted(spans):
        if joined and joined[-1].last >= span.first - 1:
            joined[-1] = Span(joined[-1].first, max(joined[-1].last, span.last))
        else:
            joined.append(span)
    return tuple(joined)


def span_from(
    domain: str,
    op_type: str,
    since_version: int,
    *,
    until: int | None = None,
    signature: OpSignature | None = None,
    function: str = "",
    where: Where | None = None,
) -> Span:
    """The opsets that a registration for ``since_version`` serves, its pack's next one aside.

    Args:
        signature: of the registered function; None where another's function will be called.
        function: its name, for messages.

    Raises:
        SignatureError: ONNX has no such op or version, has deprecated it, contradicts the
            signature, or has changed the op before ``until``.
    """
    where = where or Where(op=op_type, domain=domain)
    if until is not None and until < since_version:
        raise SignatureError(
            f"until={until} comes before since_version={since_version}",
            where=where,
            fix="leave `until` out, or give the last opset to serve",
        )
    if not is_known_domain(domain):
        return Span(since_version, OPEN if until is None else until)
    schemas = require_history(domain, op_type, where)
    own = _living_version(schemas, since_version, where)
    if signature is not None:
        check_conformity(signature, own, function, where)
    for later in schemas[schemas.index(own) + 1 :]:
        alike = not later.deprecated and later.called_like(own)
        if alike and (signature is None or conforms(signature, later)):
            continue
        last = later.since_version - 1
        if until is not None and until > last:
            raise SignatureError(
                f"until={until} goes beyond {own}: version {later.since_version} "
                + ("is deprecated" if later.deprecated else "is called differently"),
                where=where,
                expected=f"at most {last}",
                fix=f"leave `until` out, and register version {later.since_version} on its own",
            )
        return Span(since_version, last if until is None else until)
    return Span(since_version, _open_if_newest(domain, until))


def spans_that_fit(
    domain: str,
    op_type: str,
    signature: OpSignature | None,
    *,
    until: int | None = None,
    function: str = "",
    where: Where | None = None,
) -> tuple[Span, ...]:
    """The opsets that a registration serves which names no version.

    Those whose schema its function fits, or all if it has no function of its own.

    Raises:
        SignatureError: ONNX has no such op, or the signature fits none of its versions up to
            ``until``.
    """
    everything = Span(1, _open_if_newest(domain, until))
    if not is_known_domain(domain):
        return (everything,)
    where = where or Where(op=op_type, domain=domain)
    schemas = require_history(domain, op_type, where)
    if signature is None:
        return (everything,)
    ends = [later.since_version - 1 for later in schemas[1:]] + [OPEN]
    fitting = [
        span
        for schema, end in zip(schemas, ends, strict=True)
        if not schema.deprecated and conforms(signature, schema)
        if (span := Span(schema.since_version, end) & everything)
    ]
    if not fitting:
        living = [schema for schema in schemas if not schema.deprecated]
        check_conformity(signature, living[-1], function, where)
        raise SignatureError(
            f"until={until} comes before every version of {op_type} that {function} fits",
            where=where,
            fix="leave `until` out, or give the last opset to serve",
        )
    return join(fitting)


def require_history(domain: str, op_type: str, where: Where) -> tuple[OpSchema, ...]:
    """Every version of an op of ONNX's own domains; SignatureError if it has no such op."""
    schemas = history(domain, op_type)
    if not schemas:
        hint = did_you_mean(op_type, op_types(domain))
        own = "register an op of your own in a domain of your own, such as domain='com.example'"
        raise SignatureError(
            f"ONNX has no operator {op_type!r} in domain {display_domain(domain)!r}",
            where=where,
            fix=f"{hint}; otherwise {own}" if hint else own,
        )
    return schemas


def did_you_mean(word: str, words: Sequence[str]) -> str:
    """``perhaps 'Relu' or 'Elu' is meant`` for a misspelt name, or nothing."""
    from difflib import get_close_matches

    word = word.lower()
    size, characters = len(word), _characters(word)
    by_lower, sets = _index(tuple(words))
    # Of a whole model's unknown operators most have nothing to do with most names, so first the
    # ratio as if each character matched that both words have.
    near = [
        other
        for other, others, length in sets
        if 2 * (size - (characters & ~others).bit_count()) >= _CLOSE * (size + length)
        and 2 * (length - (others & ~characters).bit_count()) >= _CLOSE * (size + length)
    ]
    close = [by_lower[match] for match in get_close_matches(word, near, n=3, cutoff=_CLOSE)]
    return f"perhaps {' or '.join(map(repr, close))} is meant" if close else ""


_CLOSE = 0.6  # of difflib's ratio: twice the characters that match, over those of both words


@functools.lru_cache(maxsize=8)
def _index(words: tuple[str, ...]) -> tuple[dict[str, str], list[tuple[str, int, int]]]:
    """The words by their lower case, and of each its lower case, characters and length."""
    by_lower = {word.lower(): word for word in words}
    return by_lower, [(word, _characters(word), len(word)) for word in by_lower]


def _characters(word: str) -> int:
    """The set of a word's characters as the bits of a number; a few of them share a bit."""
    return functools.reduce(lambda bits, character: bits | 1 << ord(character) % 64, word, 0)


def _open_if_newest(domain: str, until: int | None) -> int:
    newest = newest_opset(domain)
    return OPEN if until is None or (newest is not None and until >= newest) else until


def _living_version(schemas: tuple[OpSchema, ...], version: int, where: Where) -> OpSchema:
    own = next((schema for schema in schemas if schema.since_version == version), None)
    if own is not None and not own.deprecated:
        return own
    problem = "is deprecated" if own else "does not exist"
    living = ", ".join(str(s.since_version) for s in schemas if not s.deprecated)
    raise SignatureError(
        f"version {version} of {schemas[0].op_type} {problem} in ONNX",
        where=where,
        expected=f"since_version to be one of {living}",
        got=str(version),
        fix="pass the version whose schema the function implements",
    )
