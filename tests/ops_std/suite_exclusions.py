"""What of ONNX's backend suite is not run, and why. Strict: what starts to pass has to leave."""

from __future__ import annotations

RANDOM = "draws random numbers: no result to compare with"
IMAGES = "decodes image files"
STRINGS = "computes on strings"
SEQUENCES = "computes on sequences or optional values, not on tensors"

#: Operators of the default domain that the packs leave out.
OPS: dict[str, str] = {
    **dict.fromkeys(
        (
            "Bernoulli",
            "Multinomial",
            "RandomNormal",
            "RandomNormalLike",
            "RandomUniform",
            "RandomUniformLike",
        ),
        RANDOM,
    ),
    "ImageDecoder": IMAGES,
    **dict.fromkeys(("RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit"), STRINGS),
    **dict.fromkeys(
        (
            "ConcatFromSequence",
            "Optional",
            "OptionalGetElement",
            "OptionalHasElement",
            "SequenceAt",
            "SequenceConstruct",
            "SequenceEmpty",
            "SequenceErase",
            "SequenceInsert",
            "SequenceLength",
            "SequenceMap",
            "SplitToSequence",
        ),
        SEQUENCES,
    ),
}

#: Domains that the packs leave out.
DOMAINS: dict[str, str] = {
    "ai.onnx.preview.training": "trains a model",
}

#: Cases that raise a typed error, with the reason.
CASES: dict[str, str] = dict.fromkeys(
    ("test_not_2d", "test_not_3d", "test_not_4d"), "opset 1, older than what models still come in"
)
