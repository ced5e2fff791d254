import numpy as np
from onnx import numpy_helper


def cases(add, make):
    # Types that LibTorch has few kernels for.
    u = np.array([[1, 2**31 + 7], [3, 4], [5, 2**32 - 1]], np.uint32)
    add("gather_uint32", "Gather", [u, make.i64(-1, 0)], given=[u[[-1, 0]]])
    add("gather_elements_uint16", "GatherElements", [u.astype(np.uint16), np.array([[1, 0]], np.int64)], axis=1, given=[u.astype(np.uint16)[:1, ::-1]])
    add("concat_uint64", "Concat", [u.astype(np.uint64), u.astype(np.uint64)], axis=1)
    add("slice_uint16", "Slice", [np.arange(6, dtype=np.uint16), make.i64(-1), make.i64(-7), make.i64(0), make.i64(-2)], given=[np.array([5, 3, 1], np.uint16)])
    add("split_17", "Split", [make.real(4, 2)], outputs=2, opset=17, axis=0)
    x = make.real(4)
    add("split_1", "Split", [x], outputs=2, opset=1, split=[1, 3], given=[x[:1], x[1:]])
    add("reshape_1", "Reshape", [x], opset=1, shape=[2, -1], given=[x.reshape(2, 2)])
    add("concat_1", "Concat", [x.reshape(2, 2), x.reshape(2, 2)], opset=1, given=[np.concatenate([x.reshape(2, 2)] * 2, 1)])
    for kind in [np.uint16, np.uint64, np.int8, np.float64, bool]:
        fill = numpy_helper.from_array(np.array([3]).astype(kind))
        add(f"constant_of_shape_{kind.__name__}", "ConstantOfShape", [make.i64(2, 3)], value=fill, given=[np.full((2, 3), 3).astype(kind)])
    add("range_int16", "Range", [np.array(v, np.int16) for v in [7, -2, -3]])
    add("softmax_11_of_a_list", "Softmax", [x], opset=11, given=[np.ones_like(x)])
    m = make.rng.integers(0, 9, (2, 3, 4))
    for kind in [np.int32, np.int64, np.uint32, np.uint64]:
        a, b = m.astype(kind), m[0].T.astype(kind)
        add(f"matmul_{kind.__name__}", "MatMul", [a, b], given=[a @ b])
        add(f"gemm_{kind.__name__}", "Gemm", [a[0], b, np.array([2, 1, 0]).astype(kind)], alpha=2.0, given=[(2 * (a[0] @ b) + np.array([2, 1, 0])).astype(kind)])
    a = make.real(2, 3)
    add("gemm_6", "Gemm", [a, a.T.copy(), make.real(2)], opset=6, broadcast=1, beta=0.0, given=[a @ a.T])

    add("gather_nd", "GatherND", [make.real(2, 3, 4), np.array([[1, -1], [0, 0], [0, 0]], np.int64)], gradient=True)
    x = make.real(2, 3, 4)
    add("gather_nd_batch", "GatherND", [x, np.array([[[2], [0]], [[1], [1]]], np.int64)], gradient=True, batch_dims=1)
    add("gather_nd_one", "GatherND", [x, np.array([1, 2, 3], np.int64)], given=[x[1, 2, 3]])
    add("gather_nd_none", "GatherND", [x, np.zeros((0, 1), np.int64)], given=[np.zeros((0, 3, 4), np.float32)])

    places = np.array([[1, 0, 2], [0, -1, 1]], np.int64)
    twice = np.array([[1, 1, 0], [0, 2, 2]], np.int64)
    for how in ["add", "mul", "max", "min"]:
        add(f"scatter_elements_{how}", "ScatterElements", [make.spread(2, 3), twice, make.spread(2, 3) + np.float32(0.031)], gradient=True, axis=1,
            reduction=how)
        add(f"scatter_nd_{how}", "ScatterND", [make.spread(3, 2), np.array([[1], [0], [1]], np.int64), make.spread(3, 2) + np.float32(0.031)],
            gradient=True, reduction=how)
        d = np.array([2**32 - 2, 5], np.uint32)
        wanted = d.copy()
        function = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}[how]
        wanted[0] = function(wanted[0:1], np.array([7], np.uint32))[0]
        add(f"scatter_elements_{how}_uint32", "ScatterElements", [d, make.i64(0), np.array([7], np.uint32)], reduction=how, given=[wanted])
    add("scatter_elements", "ScatterElements", [make.real(2, 3), places, make.real(2, 3)], gradient=True, axis=1)
    add("scatter_elements_part", "ScatterElements", [make.real(3, 3), np.array([[2, 0]], np.int64), make.real(1, 2)], gradient=True)
    d, w = make.real(2, 3), make.real(2, 3)
    wanted = d.copy()
    np.put_along_axis(wanted, places, w, 1)
    add("scatter_9", "Scatter", [d, places, w], opset=9, gradient=True, axis=1, given=[wanted])
    add("scatter_nd", "ScatterND", [make.real(3, 2, 2), np.array([[2, 1], [-3, 0]], np.int64), make.real(2, 2)], gradient=True)
    for mode, begin in [("linear", [1, 2]), ("circular", [3, -1])]:
        add(f"tensor_scatter_{mode}", "TensorScatter", [make.real(2, 2, 4, 3), make.real(2, 2, 2, 3), make.i64(*begin)], opset=24, gradient=True, mode=mode)
    add("tensor_scatter_axis", "TensorScatter", [make.real(2, 4), make.real(2, 3)], opset=24, gradient=True, axis=1)

    add("compress", "Compress", [make.real(3, 4), np.array([True, False, True])], gradient=True, axis=1)
    add("compress_flat", "Compress", [make.real(2, 3), np.array([False, True, True, False, True])], gradient=True)
    z = np.array([[2, 1], [1, 1], [2, 1], [0, 3]], np.int32)
    add("unique_rows_as_they_come", "Unique", [z], outputs=4, axis=0, sorted=0,
        given=[z[[0, 1, 3]], make.i64(0, 1, 3), make.i64(0, 1, 0, 2), make.i64(2, 1, 1)])
    add("unique_uint64", "Unique", [np.array([2**63 + 1, 4, 2**63 + 1], np.uint64)], outputs=4,
        given=[np.array([4, 2**63 + 1], np.uint64), make.i64(1, 0), make.i64(1, 0, 1), make.i64(1, 2)])
    add("unique_flags", "Unique", [np.array([True, True])], given=[np.array([True])])
    add("non_zero_uint32", "NonZero", [u - np.uint32(3)], given=[np.array(np.nonzero(u - np.uint32(3)))])
    add("non_zero_scalar", "NonZero", [np.array(3, np.float32)], given=[np.zeros((0, 1), np.int64)])
    add("one_hot_uint16", "OneHot", [np.array([[2, 0]], np.uint8), np.array([3], np.float32), np.array([9, 40000], np.uint16)], axis=1,
        given=[np.array([[[9, 40000], [9, 9], [40000, 9]]], np.uint16)])
    add("reverse_sequence", "ReverseSequence", [make.real(2, 4, 3), make.i64(3, 0)], gradient=True, batch_axis=0, time_axis=1)
    add("reverse_sequence_time_first", "ReverseSequence", [make.real(4, 2), make.i64(1, 4)], gradient=True)

    add("tile", "Tile", [make.real(2, 1, 3), make.i64(2, 3, 1)], gradient=True)
    x = make.real(2, 3)
    add("tile_1", "Tile", [x, np.array(2, np.float32).astype(np.int64), np.array(1, np.int64)], opset=5, given=[np.tile(x, (1, 2))])
    add("tile_none", "Tile", [x, make.i64(0, 2)], given=[np.zeros((0, 6), np.float32)])
    add("pad", "Pad", [make.real(2, 3), make.i64(1, 0, 0, 2), np.array(1.5, np.float32)], gradient=True)
    for mode in ["reflect", "edge", "wrap"]:
        add(f"pad_{mode}", "Pad", [make.real(2, 4), make.i64(0, 2, 1, 3)], gradient=True, mode=mode)
        add(f"pad_{mode}_far", "Pad", [make.rng.integers(0, 9, (3,)), make.i64(7, 8)], mode=mode)
    add("pad_less", "Pad", [x, make.i64(-1, 1, 0, -2)], gradient=True, given=[np.array([[0, x[1, 0]]], np.float32)])
    add("pad_axes", "Pad", [x, make.i64(1, 2), np.array(0, np.float32), make.i64(-1)], gradient=True)
    add("pad_2", "Pad", [x], opset=2, pads=[1, 0, 0, 1], value=2.0, given=[np.pad(x, ((1, 0), (0, 1)), constant_values=2)])
    add("pad_1", "Pad", [x], opset=1, paddings=[1, 0, 0, 1], mode="edge", given=[np.pad(x, ((1, 0), (0, 1)), mode="edge")])
    add("pad_uint16", "Pad", [np.array([1, 2], np.uint16), make.i64(1, 0), np.array([65535], np.uint16)], given=[np.array([65535, 1, 2], np.uint16)])
    add("pad_flags", "Pad", [np.array([True]), make.i64(1, 1)], given=[np.array([False, True, False])])
    add("center_crop_pad", "CenterCropPad", [make.real(5, 3), make.i64(2, 6)], gradient=True)
    add("center_crop_pad_axes", "CenterCropPad", [make.real(2, 5, 3), make.i64(2)], gradient=True, axes=[-2])

    for name, equation, shapes in [
            ("product", "ij,jk->ik", [(2, 3), (3, 4)]), ("ellipsis", "...ij,...jk->...ik", [(2, 1, 2, 3), (4, 3, 2)]), ("trace", "ii", [(3, 3)]),
            ("diagonal", "ii->i", [(3, 3)]), ("implied", "ba", [(2, 3)]), ("outer", "i,j->ij", [(2,), (3,)]), ("middle", "a...b->...", [(2, 3, 2)]),
            ("three", "ij,jk,kl->il", [(2, 3), (3, 2), (2, 2)]), ("capitals", "aB,Ba -> B", [(2, 3), (3, 2)]), ("heads", "bshd,hde->bse", [(2, 3, 2, 2), (2, 2, 4)])]:
        add(f"einsum_{name}", "Einsum", [make.real(*shape) for shape in shapes], gradient=True, equation=equation)
    whole = make.rng.integers(0, 9, (2, 3))
    for kind in [np.int32, np.uint8, np.uint32]:
        add(f"einsum_{kind.__name__}", "Einsum", [whole.astype(kind), whole.T.astype(kind)], equation="ij,jk->ik", given=[whole.astype(kind) @ whole.T.astype(kind)])
    add("einsum_sum_int32", "Einsum", [whole.astype(np.int32)], equation="ij->j", given=[whole.astype(np.int32).sum(0, dtype=np.int32)])

    for mode in ["DCR", "CRD"]:
        add(f"depth_to_space_{mode.lower()}", "DepthToSpace", [make.real(1, 8, 2, 3)], gradient=True, blocksize=2, mode=mode)
        add(f"space_to_depth_{mode.lower()}", "SpaceToDepth", [make.real(1, 2, 4, 6)], opset=28, gradient=True, blocksize=2, mode=mode)
    add("col2im", "Col2Im", [make.real(1, 12, 4), make.i64(4, 5), make.i64(2, 3)], gradient=True, strides=[2, 2])
    add("col2im_uneven", "Col2Im", [make.real(2, 6, 6), make.i64(3, 4), make.i64(2, 3)], gradient=True, dilations=[2, 1], pads=[1, 0, 0, 1])
    boxes = make.real(1, 4, 4, low=0.0)
    add("non_max_suppression_none", "NonMaxSuppression", [boxes, make.real(1, 2, 4)], given=[np.zeros((0, 3), np.int64)])
    vocabulary = dict(min_gram_length=1, max_gram_length=2, ngram_counts=[0, 2], ngram_indexes=[0, 1, 2], pool_int64s=[5, 6, 5, 6])
    row = np.array([[5, 6, 5], [6, 7, 6]], np.int64)
    add("tfidf_skips", "TfIdfVectorizer", [row], mode="TF", max_skip_count=1, **vocabulary)
    add("tfidf_weights", "TfIdfVectorizer", [row], mode="TFIDF", max_skip_count=0, weights=[2.0, 0.5, 3.0], **vocabulary)
    add("tfidf_inverse", "TfIdfVectorizer", [row], mode="IDF", max_skip_count=0, weights=[2.0, 0.5, 3.0], **vocabulary)

