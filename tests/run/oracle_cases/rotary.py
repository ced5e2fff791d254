import numpy as np


def cases(add, make):
    cos, sin, positions = make.real(6, 2), make.real(6, 2), np.array([[0, 5, 2]], np.int64)
    for interleaved in (0, 1):
        add(f"rotary_3d_{interleaved}", "RotaryEmbedding", [make.real(1, 3, 8), cos, sin, positions], gradient=True, num_heads=2, interleaved=interleaved)
        add(f"rotary_4d_{interleaved}", "RotaryEmbedding", [make.real(1, 2, 3, 4), cos, sin, positions], gradient=True, interleaved=interleaved)
        add(f"rotary_partial_{interleaved}", "RotaryEmbedding", [make.real(1, 2, 3, 6), cos, sin, positions], gradient=True,
            rotary_embedding_dim=4, interleaved=interleaved)
    add("rotary_rows", "RotaryEmbedding", [make.real(1, 3, 8), make.real(1, 3, 2), make.real(1, 3, 2)], gradient=True, num_heads=2)
