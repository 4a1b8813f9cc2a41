"""Bytes of a weight that bitsandbytes stores as 4-bit NormalFloat.

Source: `quantize_4bit` and `quantize_blockwise` in bitsandbytes/functional.py: two codes a byte, one
scale (absmax) for each block of 64 weights; double quantisation stores those scales as 8-bit codes in
blocks of 256 with a float32 scale each, and one float32 offset.
"""

from __future__ import annotations

BLOCK_WEIGHTS = 64
NESTED_BLOCK_SCALES = 256
CODE_TABLE_BYTES = 16 * 4
NESTED_TABLE_BYTES = 256 * 4
OFFSET_BYTES = 4


def code_bytes(weights: int) -> int:
    """The packed codes, whatever type they are stored as."""
    return -(-weights // 2)


def state_bytes(weights: int, double_quantization: bool) -> int:
    """Scales and tables, which no engine shards: they hang on the parameter, and are none themselves."""
    blocks = -(-weights // BLOCK_WEIGHTS)
    if not double_quantization:
        return 4 * blocks + CODE_TABLE_BYTES
    nested = -(-blocks // NESTED_BLOCK_SCALES)
    return blocks + 4 * nested + OFFSET_BYTES + CODE_TABLE_BYTES + NESTED_TABLE_BYTES
