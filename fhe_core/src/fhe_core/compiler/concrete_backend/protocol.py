"""Concrete's messages as structs: ciphertexts, evaluation keys, and all keys of a client."""

from __future__ import annotations

from collections.abc import Mapping

from fhe_core.compiler.concrete_backend.wire import (
    Field,
    Struct,
    either,
    flag,
    integers,
    lengths,
    number,
    part,
    parts,
    word,
)

_SHAPE = Struct("shape", {"dimensions": integers(0)})
_PAYLOAD = Struct("payload", {"bytes": lengths(0)})
_SIZES = {"integerPrecision": number("I", 0), "isSigned": flag(4)}
_RAW = Struct("raw info", {"shape": part(_SHAPE, 0), **_SIZES})
_POWER = Struct("modulus", {"power": number("I", 0)})
_OTHER = Struct("modulus", {"modulus": number("I", 0)})
_MODULUS = Struct(
    "modulus",
    {
        "modulus": either(
            0, 0, {"native": Struct("modulus"), "powerOfTwo": _POWER, "integer": _OTHER}
        )
    },
)
_ENCRYPTION = Struct(
    "encryption",
    {
        "keyId": number("I", 0),
        "variance": number("d", 8),
        "lweDimension": number("I", 4),
        "modulus": part(_MODULUS, 0),
    },
)
_CHUNKED = Struct("chunks", {"size": number("I", 0), "width": number("I", 4)})
_CRT = Struct("remainders", {"moduli": integers(0)})
_INTEGER = Struct(
    "encoding",
    {
        "width": number("I", 0),
        "isSigned": flag(4),
        "mode": either(6, 0, {"native": Struct("mode"), "chunked": _CHUNKED, "crt": _CRT}),
    },
)
_COMPRESSIONS = ("none", "seed", "paillier")
_CIPHERTEXT = Struct(
    "ciphertext",
    {
        "abstractShape": part(_SHAPE, 0),
        "concreteShape": part(_SHAPE, 1),
        "integerPrecision": number("I", 0),
        "encryption": part(_ENCRYPTION, 2),
        "compression": word(4, *_COMPRESSIONS),
        "encoding": either(6, 3, {"integer": _INTEGER, "boolean": Struct("encoding")}),
    },
)
_PLAIN = Struct("plaintext", {"shape": part(_SHAPE, 0), **_SIZES})
_TYPES = {"lweCiphertext": _CIPHERTEXT, "plaintext": _PLAIN, "index": _PLAIN}
VALUE = Struct(
    "value",
    {
        "payload": part(_PAYLOAD, 0),
        "rawInfo": part(_RAW, 1),
        "typeInfo": part(Struct("type", {"": either(0, 0, _TYPES)}), 2),
    },
)


def _key(kind: str, params: Mapping[str, Field]) -> Struct:
    """An evaluation key: its description and its bytes."""
    described = Struct(
        kind,
        {
            "id": number("I", 0),
            "inputId": number("I", 4),
            "outputId": number("I", 8),
            "params": part(Struct(kind, {**params, "modulus": part(_MODULUS, 0)}), 0),
            "compression": word(12, *_COMPRESSIONS),
        },
    )
    return Struct(kind, {"info": part(described, 0), "payload": part(_PAYLOAD, 1)})


_KEY_TYPES = ("binary", "ternary")
_LEVELS = {"levelCount": number("I", 0), "baseLog": number("I", 4)}
_GLWE = {"glweDimension": number("I", 8), "polynomialSize": number("I", 12)}
_BOOTSTRAP = {
    **_LEVELS,
    **_GLWE,
    "variance": number("d", 16),
    "integerPrecision": number("I", 24),
    "keyType": word(28, *_KEY_TYPES),
    "inputLweDimension": number("I", 32),
}
_KEYSWITCH = {
    **_LEVELS,
    "variance": number("d", 8),
    "integerPrecision": number("I", 16),
    "keyType": word(20, *_KEY_TYPES),
    "inputLweDimension": number("I", 24),
    "outputLweDimension": number("I", 28),
}
_PACKING = {
    **_LEVELS,
    **_GLWE,
    "inputLweDimension": number("I", 16),
    "innerLweDimension": number("I", 20),
    "variance": number("d", 24),
    "integerPrecision": number("I", 32),
    "keyType": word(36, *_KEY_TYPES),
}
EVALUATION_KEYS = Struct(
    "evaluation keys",
    {
        "lweBootstrapKeys": parts(_key("bootstrap key", _BOOTSTRAP), 0),
        "lweKeyswitchKeys": parts(_key("key-switch key", _KEYSWITCH), 1),
        "packingKeyswitchKeys": parts(_key("packing key", _PACKING), 2),
    },
)
_SECRET_PARAMS = Struct(
    "secret key",
    {
        "lweDimension": number("I", 0),
        "integerPrecision": number("I", 4),
        "keyType": word(8, *_KEY_TYPES),
    },
)
_SECRET_INFO = Struct("secret key", {"id": number("I", 0), "params": part(_SECRET_PARAMS, 0)})
_SECRET = Struct("secret key", {"info": part(_SECRET_INFO, 0), "payload": part(_PAYLOAD, 1)})
KEYS = Struct(
    "keys",
    {
        "server": part(EVALUATION_KEYS, 0),
        "client": part(Struct("secret keys", {"lweSecretKeys": parts(_SECRET, 0)}), 1),
    },
)
