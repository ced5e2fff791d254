import numpy as np


def cases(add, make):
    for name, attributes in {
            "plain": {}, "strides": dict(strides=[2, 1], pads=[1, 1, 1, 1]), "uneven": dict(pads=[0, 1, 2, 0]),
            "dilated": dict(dilations=[2, 1]), "same_upper": dict(auto_pad="SAME_UPPER", strides=[2, 2]),
            "same_lower": dict(auto_pad="SAME_LOWER", strides=[2, 2])}.items():
        add(f"conv_{name}", "Conv", [make.real(1, 2, 6, 5), make.real(3, 2, 3, 2), make.real(3)], gradient=True, **attributes)
    add("conv_grouped", "Conv", [make.real(1, 4, 4, 4), make.real(4, 2, 3, 3)], gradient=True, group=2)
    add("conv_depthwise", "Conv", [make.real(1, 3, 5, 5), make.real(3, 1, 3, 3), make.real(3)], gradient=True, group=3, pads=[1, 1, 1, 1])
    add("conv_1d", "Conv", [make.real(2, 2, 7), make.real(3, 2, 3)], gradient=True, pads=[1, 0])
    for name, attributes in {
            "plain": {}, "padded": dict(pads=[1, 1, 1, 1], strides=[2, 2]), "ceil": dict(ceil_mode=1, strides=[2, 2]), "same": dict(auto_pad="SAME_UPPER", strides=[2, 2])}.items():
        add(f"max_pool_{name}", "MaxPool", [make.spread(1, 2, 6, 6)], gradient=True, kernel_shape=[3, 3], **attributes)
        add(f"average_pool_{name}", "AveragePool", [make.real(1, 2, 6, 6)], gradient=True, kernel_shape=[3, 3], **attributes)
    x = make.spread(1, 2, 6, 6)
    padded = np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 2)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    add("max_pool_uneven", "MaxPool", [x], gradient=True, kernel_shape=[3, 3], pads=[0, 0, 1, 2], given=[windows.max((-1, -2))])
    add("average_pool_counting", "AveragePool", [make.real(1, 2, 6, 6)], gradient=True, kernel_shape=[3, 3], pads=[1, 0, 1, 1], count_include_pad=1)
    add("average_pool_1d", "AveragePool", [make.real(1, 2, 7)], gradient=True, kernel_shape=[2], strides=[2])
    add("global_average_pool", "GlobalAveragePool", [make.real(2, 3, 4, 5)], gradient=True)
    for op in ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"]:
        add(f"{op.lower()}", op, [make.spread(2, 3, 4), make.i64(1, -1)], gradient=True, keepdims=0)
    x = make.real(2, 3, 4)
    add("reducemean_11", "ReduceMean", [x], opset=11, axes=[-1], given=[x.mean(-1, keepdims=True)])
