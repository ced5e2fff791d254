import numpy as np


def cases(add, make):
    labels = np.array([[0, 2], [1, 2]], np.int64)
    for op, name in (("SoftmaxCrossEntropyLoss", "sce"), ("NegativeLogLikelihoodLoss", "nll")):
        weights = make.real(3, low=0.5, high=2)
        for reduction in ("none", "sum", "mean"):
            add(f"{name}_{reduction}", op, [make.real(2, 3, 2), labels], gradient=True, reduction=reduction)
            add(f"{name}_{reduction}_weights", op, [make.real(2, 3, 2), labels, weights], gradient=True, reduction=reduction)
            add(f"{name}_{reduction}_ignored", op, [make.real(2, 3, 2), labels], gradient=True, reduction=reduction, ignore_index=2)
            add(f"{name}_{reduction}_outside", op, [make.real(2, 3, 2), np.where(labels == 2, -5, labels).astype(np.int32), weights],
                gradient=True, reduction=reduction, ignore_index=-5)
        add(f"{name}_12", op, [make.real(4, 3), np.array([0, 1, 2, 1])], opset=12)
    add("sce_log_prob", "SoftmaxCrossEntropyLoss", [make.real(2, 3, 2, 2), np.array([[[0, 2], [1, 1]]] * 2)], outputs=2)
    # A probability of zero where the label is ignored says nothing.
    logs = np.array([[0.0, -np.inf], [np.log(0.25), np.log(0.75)]], np.float32)
    add("nll_ignored_infinity", "NegativeLogLikelihoodLoss", [logs, np.array([1, 0])], ignore_index=1, given=[np.float32(np.log(4))])
