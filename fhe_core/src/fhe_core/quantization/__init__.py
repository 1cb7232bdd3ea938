"""From floats to integers: quantizers, quantized operators, the plan, and post-training quantization."""
