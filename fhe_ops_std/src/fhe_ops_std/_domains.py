"""The values that attributes of several operators can have, as ONNX's pages name them."""

from typing import Literal

#: A truth value. onnxruntime takes some other integers for true and some for false, each op in its way.
Flag = Literal[0, 1]
#: How much is padded around what a window slides over.
AutoPad = Literal["NOTSET", "SAME_LOWER", "SAME_UPPER", "VALID"]
#: Of a recurrent layer.
Direction = Literal["forward", "reverse", "bidirectional"]
