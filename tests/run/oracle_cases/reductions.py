import numpy as np


def cases(add, make):
    for op in ["ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp"]:
        add(f"{op.lower()}", op, [make.spread(2, 3, 4), make.i64(-1, 0)], gradient=True, keepdims=0)
        add(f"{op.lower()}_kept", op, [make.spread(2, 3)], gradient=True)
    add("reducelogsum", "ReduceLogSum", [make.real(2, 3, 4, low=0.2), make.i64(1)], gradient=True)
    x = make.spread(2, 3, 4)
    for op, given in {"ReduceProd": x.prod(1), "ReduceL1": np.abs(x).sum(1), "ReduceSumSquare": (x * x).sum(1), "ReduceMax": x.max(1)}.items():
        add(f"{op.lower()}_axes_attribute", op, [x], opset=11, axes=[-2], keepdims=0, given=[given])
    # No axes: nothing is summed, the rest is done all the same.
    y = make.real(2, 3, low=0.2)
    for op, given in {"ReduceL1": np.abs(y), "ReduceL2": np.abs(y), "ReduceSumSquare": y * y, "ReduceLogSum": np.log(y),
                      "ReduceLogSumExp": y, "ReduceProd": y, "ReduceMean": y}.items():
        add(f"{op.lower()}_no_axes", op, [y, make.i64()], noop_with_empty_axes=1, given=[given])
        add(f"{op.lower()}_empty_axes_are_all", op, [y, make.i64()])
    scalar = np.array(-2.5, np.float32)
    add("reducel1_scalar", "ReduceL1", [scalar], given=[np.array(2.5, np.float32)])
    add("reducesumsquare_scalar", "ReduceSumSquare", [scalar], given=[np.array(6.25, np.float32)])
    whole = make.rng.integers(-9, 9, (3, 4, 2))
    for kind in [np.int32, np.int64, np.uint32, np.uint64, np.int8, np.uint8]:
        z = whole.astype(kind)
        for op, function in {"ReduceMax": np.max, "ReduceMin": np.min}.items():
            add(f"{op.lower()}_{kind.__name__}", op, [z, make.i64(0, 2)], given=[function(z, axis=(0, 2), keepdims=True)])
        if kind in [np.int8, np.uint8]:
            continue
        small = np.abs(whole).astype(kind) if kind in [np.uint32, np.uint64] else z
        for op, given in {"ReduceSum": small.sum(1), "ReduceProd": small.prod(1), "ReduceSumSquare": (small * small).sum(1),
                          "ReduceL1": np.abs(small).sum(1)}.items():
            add(f"{op.lower()}_{kind.__name__}", op, [small, make.i64(1)], keepdims=0, given=[given.astype(kind)])
    add("reducemean_int32", "ReduceMean", [np.array([[-7, 2], [3, 4]], np.int32), make.i64(1)], keepdims=0, given=[np.array([-2, 3], np.int32)])
    for kind in [np.uint64, np.int32, np.uint8, np.float32]:
        nothing = np.zeros((2, 0, 3), kind)
        limits = (-np.inf, np.inf) if kind == np.float32 else (np.iinfo(kind).min, np.iinfo(kind).max)
        for op, limit in zip(["ReduceMax", "ReduceMin"], limits):
            add(f"{op.lower()}_of_nothing_{kind.__name__}", op, [nothing, make.i64(1)], keepdims=0, given=[np.full((2, 3), limit, kind)])
    add("reducemin_of_no_flags", "ReduceMin", [np.zeros((2, 0), bool), make.i64(1)], given=[np.ones((2, 1), bool)])

    add("argmax_last", "ArgMax", [np.array([[1, 3, 3], [2, 2, 1]], np.float32)], axis=1, select_last_index=1, keepdims=0)
    huge = np.array([1, 2**63 + 5, 2**63, 7], np.uint64)
    add("argmin_uint64", "ArgMin", [huge], keepdims=0, given=[np.array(0, np.int64)])
    add("argmax_uint64", "ArgMax", [huge], given=[np.array([1], np.int64)])

    for op, opset in [("CumSum", 14), ("CumProd", 26)]:
        for exclusive in [0, 1]:
            for reverse in [0, 1]:
                add(f"{op.lower()}_{exclusive}{reverse}", op, [make.real(2, 4, 3, low=0.3), np.array(-2, np.int32)], opset=opset, gradient=True,
                    exclusive=exclusive, reverse=reverse)
    add("cumsum_uint32", "CumSum", [np.array([2**31, 2**31, 5], np.uint32), np.array(0, np.int64)], given=[np.array([2**31, 0, 5], np.uint32)])
    add("cumsum_of_nothing", "CumSum", [np.zeros((2, 0), np.float32), np.array(1, np.int64)], exclusive=1)

    add("topk", "TopK", [make.spread(3, 5), make.i64(2)], outputs=2, gradient=True)
    add("topk_smallest", "TopK", [make.spread(3, 5), make.i64(2)], outputs=2, gradient=True, largest=0, axis=0)
    t = np.array([[3, 1, 3, 1]], np.float32)
    add("topk_ties", "TopK", [t, make.i64(3)], outputs=2, given=[np.array([[3, 3, 1]], np.float32), np.array([[0, 2, 1]], np.int64)])
    add("topk_ties_smallest", "TopK", [t, make.i64(3)], outputs=2, largest=0, sorted=0,
        given=[np.array([[1, 1, 3]], np.float32), np.array([[1, 3, 0]], np.int64)])
    add("topk_1", "TopK", [t], outputs=2, opset=9, k=2, given=[np.array([[3, 3]], np.float32), np.array([[0, 2]], np.int64)])
    add("topk_none", "TopK", [t, make.i64(0)], outputs=2, given=[np.zeros((1, 0), np.float32), np.zeros((1, 0), np.int64)])
    add("topk_uint64", "TopK", [huge, make.i64(2)], outputs=2, given=[np.array([2**63 + 5, 2**63], np.uint64), np.array([1, 2], np.int64)])

    x = make.spread(2, 3, 4)
    add("lp_normalization_1", "LpNormalization", [x], gradient=True, p=1, axis=1, given=[x / np.abs(x).sum(1, keepdims=True)])
    add("lp_normalization_2", "LpNormalization", [make.real(3, 4)], gradient=True)
    add("lp_normalization_zero", "LpNormalization", [np.array([[0, 0], [3, 4]], np.float32)], axis=1, given=[np.array([[0, 0], [0.6, 0.8]], np.float32)])
    add("det", "Det", [make.real(2, 3, 3)], gradient=True)
    add("det_one", "Det", [make.real(1, 1)], gradient=True)
