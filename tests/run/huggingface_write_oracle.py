"""What transformers makes of directories that Espalier wrote.

huggingface_write_oracle.py MODELS WRITTEN: for each directory WRITTEN/NAME.KIND the logits of MODELS/NAME's tokens (in.*.i64, three
rows each), in WRITTEN/NAME.KIND/logits.f32. Every weight must find its place.
"""
import pathlib
import sys
import warnings

import numpy as np
import torch
import transformers

warnings.filterwarnings("ignore")
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def main(models, written):
    torch.set_num_threads(1)
    for folder in sorted(written.iterdir()):
        source = models / folder.name.rsplit(".", 1)[0]
        ids, mask, positions = (torch.from_numpy(np.fromfile(source / f"in.{part}.i64", np.int64).reshape(3, -1))
                                for part in ("input_ids", "attention_mask", "position_ids"))
        model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32,
                                                                         output_loading_info=True)
        for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            assert not info[problem], (folder.name, problem, info[problem])
        if "mixtral" in folder.name:  # grouped products want widths in steps of 16 bytes
            model.set_experts_implementation("eager")
        with torch.no_grad():
            logits = model.eval()(input_ids=ids, attention_mask=mask, position_ids=positions).logits.float()
        np.ascontiguousarray(logits.numpy()).tofile(folder / "logits.f32")


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:]))
