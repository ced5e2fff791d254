import numpy as np


def cases(add, make):
    q, k, v = make.real(2, 3, 8), make.real(2, 3, 4), make.real(2, 3, 4)
    heads = dict(q_num_heads=4, kv_num_heads=2)
    add("attention_causal_grouped", "Attention", [q, k, v], gradient=True, is_causal=1, **heads)
    # The reference evaluator takes the number of queries from the mask when it is causal too: it is asked with the mask spread out.
    def spread_out(mask, queries=3):
        return {"x3": np.broadcast_to(mask, (*mask.shape[:2], queries, mask.shape[3]))}

    open_mask, holes = np.ones((2, 1, 1, 3), bool), np.array([[[[True, True, True]]], [[[True, False, True]]]])
    add("attention_open_mask", "Attention", [q, k, v, open_mask], gradient=True, is_causal=1, asked=spread_out(open_mask), **heads)
    add("attention_holes", "Attention", [q, k, v, holes], gradient=True, is_causal=1, asked=spread_out(holes), **heads)
    shut = np.array([[[[False, True, True]]], [[[True, True, True]]]])
    add("attention_shut_row", "Attention", [q, k, v, shut], is_causal=1, asked=spread_out(shut), **heads)
    add("attention_bias", "Attention", [q, k, v, make.real(3, 3)], gradient=True, scale=0.3, **heads)
    add("attention_softcap", "Attention", [q, k, v, holes], gradient=True, is_causal=1, softcap=2.0, asked=spread_out(holes), **heads)
    past = [make.real(2, 2, 5, 2), make.real(2, 2, 5, 2)]
    add("attention_past", "Attention", [q, k, v, None, *past], outputs=3, is_causal=1, gradient=True, **heads)
    late = np.array([[[[False] * 2 + [True] * 6]]] * 2)
    add("attention_past_mask", "Attention", [q, k, v, late, *past], outputs=3, is_causal=1, asked=spread_out(late), **heads)
    add("attention_one_query", "Attention", [q[:, :1], k[:, :1], v[:, :1], None, *past], outputs=3, is_causal=1, **heads)
    add("attention_one_query_mask", "Attention", [q[:, :1], k[:, :1], v[:, :1], np.array([[[[False] * 2 + [True] * 4]]] * 2), *past],
        outputs=3, is_causal=1, **heads)
    empty = [np.zeros((2, 2, 0, 2), np.float32)] * 2
    add("attention_empty_past", "Attention", [q, k, v, None, *empty], outputs=3, is_causal=1, **heads)
    add("attention_4d", "Attention", [make.real(1, 2, 3, 4), make.real(1, 2, 5, 4), make.real(1, 2, 5, 6)], gradient=True)
    add("attention_scores", "Attention", [make.real(1, 2, 3, 4), make.real(1, 2, 5, 4), make.real(1, 2, 5, 4), make.real(3, 5), None, None], outputs=4,
        qk_matmul_output_mode=2, given=None)
    windows = dict(left_window_size=2, right_window_size=1)
    add("attention_window", "Attention", [make.real(1, 2, 6, 4), make.real(1, 2, 6, 4), make.real(1, 2, 6, 4)], opset=25, gradient=True, **windows)
    add("attention_window_past", "Attention", [q, k, v, None, *past], outputs=3, opset=25, gradient=True, **windows, **heads)
    add("attention_window_causal", "Attention", [q, k, v, None, *past], outputs=3, opset=25, is_causal=1, left_window_size=4, **heads)
    add("attention_window_wide", "Attention", [q, k, v], opset=25, left_window_size=2**62, right_window_size=2**62, **heads)
    add("attention_window_one_query", "Attention", [q[:, :1], k[:, :1], v[:, :1], None, *past], outputs=3, opset=25, left_window_size=3, **heads)
    lengths = np.array([4, 6], np.int64)
    add("attention_window_lengths", "Attention", [make.real(2, 2, 3, 4), make.real(2, 2, 6, 4), make.real(2, 2, 6, 4), None, None, None, lengths],
        opset=25, **windows)
    add("attention_window_mask", "Attention", [make.real(2, 2, 3, 4), make.real(2, 2, 6, 4), make.real(2, 2, 6, 4), make.real(3, 4), None, None, lengths],
        opset=25, is_causal=1, left_window_size=1)
