import numpy as np

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
STEPS, BATCH, WIDTH, HIDDEN = 3, 2, 2, 2


def inputs(make, op, directions=1, layout=0):
    """X, W, R, B, no lengths, initial_h (, initial_c, P)."""
    rows = GATES[op] * HIDDEN
    state = (BATCH, directions, HIDDEN) if layout else (directions, BATCH, HIDDEN)
    x = make.real(BATCH, STEPS, WIDTH) if layout else make.real(STEPS, BATCH, WIDTH)
    given = [x, make.real(directions, rows, WIDTH), make.real(directions, rows, HIDDEN), make.real(directions, 2 * rows), None, make.real(*state)]
    return given + [make.real(*state), make.real(directions, 3 * HIDDEN)] if op == "LSTM" else given


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def one_sequence(op, x, w, r, b, h, c, p, reverse, clip, coupled):
    """One direction of one sequence [steps, width], after the operator's equations; the reference evaluator knows no clip and no coupling."""
    bound = lambda z: np.clip(z, -clip, clip)
    wb, rb = np.split(b, 2)
    ys = [None] * len(x)
    for t in range(len(x))[::-1] if reverse else range(len(x)):
        if op == "LSTM":
            i, o, f, g = np.split(w @ x[t] + r @ h + wb + rb, 4)
            i = sigmoid(bound(i + p[:HIDDEN] * c))
            f = 1 - i if coupled else sigmoid(bound(f + p[2 * HIDDEN:] * c))
            c = f * c + i * np.tanh(bound(g))
            h = sigmoid(bound(o + p[HIDDEN:2 * HIDDEN] * c)) * np.tanh(bound(c))
        elif op == "GRU":
            wx, z_r = w @ x[t] + wb, 2 * HIDDEN
            z, gate = np.split(sigmoid(bound((wx + r @ h + rb)[:z_r])), 2)
            h = (1 - z) * np.tanh(bound(wx[z_r:] + r[z_r:] @ (gate * h) + rb[z_r:])) + z * h
        else:
            h = np.tanh(bound(w @ x[t] + r @ h + wb + rb))
        ys[t] = h
    return np.stack(ys), h, c


def spelled_out(op, given, lengths, direction, clip=np.inf, coupled=False):
    """Sequences of different lengths, layout 0."""
    given = [None if v is None else v.astype(np.float64) for v in given]
    x, w, r, b, _, h, *more = given
    c, p = more if more else (h, np.zeros((len(w), 3 * HIDDEN)))
    y = np.zeros((STEPS, len(w), BATCH, HIDDEN))
    last_h, last_c = np.zeros(h.shape), np.zeros(h.shape)
    for d in range(len(w)):
        for n, length in enumerate(lengths):
            y[:length, d, n], last_h[d, n], last_c[d, n] = one_sequence(
                op, x[:length, n], w[d], r[d], b[d], h[d, n], c[d, n], p[d], direction == "reverse" or d == 1, clip, coupled)
    out = [y, last_h, last_c] if op == "LSTM" else [y, last_h]
    return [each.astype(np.float32) for each in out]


def cases(add, make):
    for op in GATES:
        outputs = 3 if op == "LSTM" else 2
        for direction in ("forward", "reverse", "bidirectional"):
            directions = 2 if direction == "bidirectional" else 1
            for layout in (0, 1):
                add(f"{op.lower()}_{direction}_{layout}", op, inputs(make, op, directions, layout), outputs=outputs, gradient=True,
                    hidden_size=HIDDEN, direction=direction, layout=layout)
            given, lengths = inputs(make, op, directions), [2, 3]
            answer = spelled_out(op, given, lengths, direction)
            given[4] = np.array(lengths, np.int32)
            add(f"{op.lower()}_{direction}_lengths", op, given, outputs=outputs, gradient=True, given=answer, hidden_size=HIDDEN,
                direction=direction)
        given = inputs(make, op)
        add(f"{op.lower()}_plain", op, given[:3], outputs=outputs, gradient=True, hidden_size=HIDDEN)
        clipped = spelled_out(op, given, [STEPS] * BATCH, "forward", clip=0.25)
        add(f"{op.lower()}_clip", op, given, outputs=outputs, given=clipped, hidden_size=HIDDEN, clip=0.25)
        add(f"{op.lower()}_old", op, given[:4], outputs=outputs, opset=7, given=spelled_out(
            op, given[:4] + [None] + [np.zeros_like(v) for v in given[5:]], [STEPS] * BATCH, "forward"), hidden_size=HIDDEN)
    add("gru_reset_after", "GRU", inputs(make, "GRU"), outputs=2, gradient=True, hidden_size=HIDDEN, linear_before_reset=1)
    add("gru_reset_after_no_bias", "GRU", inputs(make, "GRU")[:3], outputs=2, gradient=True, hidden_size=HIDDEN, linear_before_reset=1)
    given = inputs(make, "LSTM")
    add("lstm_coupled", "LSTM", given, outputs=3, gradient=True, given=spelled_out("LSTM", given, [STEPS] * BATCH, "forward", coupled=True),
        hidden_size=HIDDEN, input_forget=1)
    full = inputs(make, "RNN")
    add("rnn_full_lengths", "RNN", full[:4] + [np.array([STEPS] * BATCH, np.int32)] + full[5:], outputs=2,
        given=spelled_out("RNN", full, [STEPS] * BATCH, "forward"), hidden_size=HIDDEN)
