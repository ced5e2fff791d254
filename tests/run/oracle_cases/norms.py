def cases(add, make):
    add("rms_norm", "RMSNormalization", [make.real(2, 3, 4), make.real(4)], gradient=True, epsilon=1e-3)
    add("rms_norm_wide", "RMSNormalization", [make.real(3, 100), make.real(100)])
    add("rms_norm_two_axes", "RMSNormalization", [make.real(2, 3, 4), make.real(3, 4)], gradient=True, axis=1)
    add("layer_norm", "LayerNormalization", [make.real(2, 3, 4), make.real(4), make.real(4)], outputs=3, gradient=True)
    add("layer_norm_axis", "LayerNormalization", [make.real(2, 3, 4), make.real(3, 4)], gradient=True, axis=1)
    add("batch_norm", "BatchNormalization", [make.real(2, 3, 4, 2), make.real(3), make.real(3), make.real(3), make.real(3, low=0.5, high=2)], gradient=True)
