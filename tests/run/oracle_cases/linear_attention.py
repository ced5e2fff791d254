import numpy as np


def cases(add, make):
    batch, length, size, v_size = 2, 3, 2, 3
    for q, kv in ((2, 2), (4, 2), (2, 1)):
        for rule in ("linear", "gated", "delta", "gated_delta"):
            gated, delta = rule.startswith("gated"), rule.endswith("delta")
            given = [make.real(batch, length, q * size), make.real(batch, length, kv * size), make.real(batch, length, kv * v_size),
                     make.real(batch, kv, size, v_size), make.real(batch, length, kv * size, high=0) if gated else None,
                     make.real(batch, length, kv, low=0) if delta else None]
            add(f"linear_attention_{rule}_{q}_{kv}", "LinearAttention", given, outputs=2, opset=27, gradient=True, update_rule=rule,
                q_num_heads=q, kv_num_heads=kv)
    given = [make.real(1, 4, 4), make.real(1, 4, 4), make.real(1, 4, 4), None, make.real(1, 4, 2, high=0), make.real(1, 4, 1, low=0)]
    add("linear_attention_one_gate", "LinearAttention", given, outputs=2, opset=27, gradient=True, q_num_heads=2, kv_num_heads=2, scale=0.7)

    for kernel in (1, 2, 4):
        for activation in ("none", "silu", "swish"):
            given = [make.real(2, 3, 2), make.real(3, 1, kernel), make.real(3), make.real(2, 3, kernel - 1)]
            add(f"causal_conv_{kernel}_{activation}", "CausalConvWithState", given, outputs=2, opset=27, gradient=kernel > 1, activation=activation)
        add(f"causal_conv_{kernel}_plain", "CausalConvWithState", given[:2], outputs=2, opset=27, gradient=True)
