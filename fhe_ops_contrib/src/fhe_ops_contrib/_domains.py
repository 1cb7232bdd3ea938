"""The values that attributes of several operators can have, as ONNX's pages name them."""

from typing import Literal

#: A truth value.
Flag = Literal[0, 1]
#: What is done to the scores of a model.
PostTransform = Literal["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"]
#: Of a support vector machine.
KernelType = Literal["LINEAR", "POLY", "RBF", "SIGMOID"]
#: Of the trees' scores.
Aggregate = Literal["AVERAGE", "SUM", "MIN", "MAX"]
