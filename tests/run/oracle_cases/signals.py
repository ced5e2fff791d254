"""Fourier transforms, windows, and the normalizations that norms.py does not have."""
import numpy as np


def parts(z):
    return np.stack([z.real, z.imag], -1).astype(np.float32)


def transforms(add, make):
    real, pair = make.real(2, 3, 6, 1), make.real(2, 5, 3, 2)
    z = pair[..., 0] + 1j * pair[..., 1]
    for points in [None, 4, 9]:
        length = [] if points is None else [np.array(points, np.int64)]
        add(f"dft_{points}", "DFT", [real] + length, gradient=True, given=[parts(np.fft.fft(real[..., 0], points, 2))])
        add(f"dft_one_sided_{points}", "DFT", [real] + length, gradient=True, onesided=1, given=[parts(np.fft.rfft(real[..., 0], points, 2))])
        add(f"dft_inverse_{points}", "DFT", [pair] + (length or [None]) + [np.array(1, np.int64)], gradient=True, inverse=1,
            given=[parts(np.fft.ifft(z, points, 1))])
        add(f"dft_one_sided_inverse_{points}", "DFT", [pair] + (length or [None]) + [np.array(-3, np.int64)], gradient=True, inverse=1, onesided=1,
            given=[np.fft.irfft(z, points, 1)[..., None].astype(np.float32)])
    add("dft_inverse_of_real", "DFT", [real], inverse=1, given=[parts(np.fft.ifft(real[..., 0], axis=2))])
    add("dft_17", "DFT", [pair], opset=17, gradient=True, axis=1, given=[parts(np.fft.fft(z, axis=1))])
    signal, window, step = make.real(2, 11, 1), make.real(4, low=0.2), np.array(3, np.int64)
    frames = np.lib.stride_tricks.sliding_window_view(signal[..., 0], 4, 1)[:, ::3]
    add("stft_window", "STFT", [signal, step, window], gradient=True, given=[parts(np.fft.rfft(frames * window))])
    add("stft_length", "STFT", [signal, step, None, np.array(4, np.int64)], gradient=True, onesided=0, given=[parts(np.fft.fft(frames))])
    add("stft_whole", "STFT", [signal, step], given=[parts(np.fft.rfft(signal[..., 0]))[:, None]])
    pair = make.real(1, 8, 2)
    frames = np.lib.stride_tricks.sliding_window_view(pair[..., 0] + 1j * pair[..., 1], 4, 1)[:, ::3]
    add("stft_complex", "STFT", [pair, step, window], gradient=True, onesided=0, given=[parts(np.fft.fft(frames * window))])
    for name in ["HannWindow", "HammingWindow", "BlackmanWindow"]:
        for periodic in [0, 1]:
            add(f"{name.lower()}_{periodic}", name, [np.array(7, np.int64)], periodic=periodic)
        add(f"{name.lower()}_f64", name, [np.array(5, np.int32)], output_datatype=11)
    scalars = [np.array(v, np.int64) for v in (6, 32, 8000)] + [np.array(v, np.float32) for v in (100, 3500)]
    add("mel_weights", "MelWeightMatrix", scalars)
    add("mel_weights_narrow", "MelWeightMatrix", [np.array(40, np.int64)] + scalars[1:], output_datatype=11)


def normalizations(add, make):
    x, scale, bias = make.real(2, 4, 3, 2), make.real(4), make.real(4)
    add("instance_norm", "InstanceNormalization", [x, scale, bias], gradient=True, epsilon=1e-3)
    add("instance_norm_1d", "InstanceNormalization", [make.real(1, 4, 5), scale, bias], opset=6, gradient=True)
    column = (1, 4, 1, 1)
    for groups in [1, 2, 4]:
        rows = x.reshape(2, groups, -1)
        plain = ((rows - rows.mean(-1, keepdims=True)) / np.sqrt(rows.var(-1, keepdims=True) + 1e-5)).reshape(x.shape)
        add(f"group_norm_{groups}", "GroupNormalization", [x, scale, bias], gradient=True, num_groups=groups,
            given=[plain * scale.reshape(column) + bias.reshape(column)])
        few, shift = scale[:groups], bias[:groups]
        add(f"group_norm_18_{groups}", "GroupNormalization", [x, few, shift], opset=18, gradient=True, num_groups=groups,
            given=[plain * np.repeat(few, 4 // groups).reshape(column) + np.repeat(shift, 4 // groups).reshape(column)])
    for axes in [[0, 2, 3], [1], [-1, 0]]:
        mean, deviation = x.mean(tuple(axes), keepdims=True), x.std(tuple(axes), keepdims=True)
        add(f"mean_variance_{len(axes)}", "MeanVarianceNormalization", [x], gradient=True, axes=axes, given=[(x - mean) / deviation])
    x = make.real(2, 5, 3)
    for size in [1, 2, 3, 20]:
        before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
        sums = np.stack([(x[:, max(0, c - before):c + after + 1]**2).sum(1) for c in range(5)], 1)
        add(f"lrn_{size}", "LRN", [x], gradient=True, size=size, alpha=0.3, beta=0.6, bias=1.5, given=[x / (1.5 + 0.3 / size * sums)**0.6])
    x, scale, bias = make.real(3, 2, 4), make.real(2), make.real(2)
    mean, variance = make.real(2), make.real(2, low=0.5, high=2)
    add("batch_norm_training", "BatchNormalization", [x, scale, bias, mean, variance], outputs=3, gradient=True, training_mode=1, momentum=0.7)
    add("batch_norm_test_6", "BatchNormalization", [x, scale, bias, mean, variance], opset=6, is_test=1,
        given=[((x.transpose(0, 2, 1) - mean) / np.sqrt(variance + 1e-5) * scale + bias).transpose(0, 2, 1)])
    x = make.real(2, 3, 4)
    gain, shift = make.real(2, 1, 4), make.real(2, 3, 1)
    mean, deviation = x.mean(-1, keepdims=True), np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    add("layer_norm_outer_gain", "LayerNormalization", [x, gain, shift], outputs=3, gradient=True,
        given=[(x - mean) / deviation * gain + shift, mean, 1 / deviation])
    root = np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)
    add("rms_norm_outer_gain", "RMSNormalization", [x, gain], gradient=True, given=[x / root * gain])
    add("rms_norm_single_gain", "RMSNormalization", [x, make.real(1)], gradient=True, axis=-2)


def cases(add, make):
    transforms(add, make)
    normalizations(add, make)
