# src/fhe_pack_audio/__init__.py
"""Operators on sampled sound."""

import numpy as np

import fhe_core

DOMAIN = "org.example.audio"


def mu_law(X, /, *, mu=255.0):
    """Compresses samples between -1 and 1, as telephones do (ITU-T G.711)."""
    return (np.sign(X) * np.log1p(mu * np.abs(X)) / np.log1p(mu)).astype(X.dtype)


def difference(X, /):
    """What each sample adds to the one before it: (N, T) gives (N, T - 1)."""
    return X[:, 1:] - X[:, :-1]


def mix(A, B, /, *, gain=0.5):
    """Two recordings at once: gain (A + B)."""
    return (gain * (A + B)).astype(A.dtype)


class QuantizedMuLaw(fhe_core.QuantizedOp):
    """A function of each sample: a table look-up."""

    _impl_for_op_named = "MuLaw"


class QuantizedDifference(fhe_core.QuantizedOp):
    """Integers are subtracted; no look-up."""

    _impl_for_op_named = "Difference"

    def q_impl(self, *q_inputs, **attrs):
        (x,) = self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=True
        )
        # real = scale * (integer - zero point), and there may be one zero point for each sample.
        zero = np.broadcast_to(x.quantizer.zero_point, (1, *x.shape[1:]))
        integers = difference(x.qvalues)
        return self.quantized((integers.astype(np.float64) - difference(zero)) * x.quantizer.scale)


class QuantizedMix(fhe_core.QuantizedOp):
    """A look-up where both recordings come from one integer tensor, else integers are added."""

    _impl_for_op_named = "Mix"
    shares_scale = True

    def can_fuse(self):
        return len(self._int_input_names) == 1

    def q_impl(self, *q_inputs, gain, **attrs):
        if self.can_fuse():
            return super().q_impl(*q_inputs, gain=gain, **attrs)
        a, b = self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=True
        )
        zero = a.quantizer.zero_point + b.quantizer.zero_point
        integers = a.qvalues + b.qvalues
        return self.quantized((integers.astype(np.float64) - zero) * (a.quantizer.scale * gain))


@fhe_core.hookimpl
def fhe_register_ops(registry):
    registry.impl("MuLaw", mu_law, domain=DOMAIN)
    registry.impl("Difference", difference, domain=DOMAIN)
    registry.impl("Mix", mix, domain=DOMAIN)
    for cls in (QuantizedMuLaw, QuantizedDifference, QuantizedMix):
        registry.quantized(cls, domain=DOMAIN)
