"""Groups and cuts of whole files: time beside Torch-Pruning's on the same model, and memory on a file larger than it should take.

python bench/structure.py speed MODEL.gguf [--rounds 5]
    `espalier model groups` and `espalier model cut` as whole processes, the way from GGUF and from the same model as ONNX (mapped, nothing
    to convert); and, inside a process that has the model (build bench_structure first), finding the groups, against building
    Torch-Pruning's dependency graph and all its groups for transformers' model (needs `setup --all`). Medians of alternating rounds.
python bench/structure.py memory FOLDER [--layers 32]
    Makes a LLaMA-7B-shaped Hugging Face directory in bf16 with random weights (13 GB at 32 layers) in FOLDER, unless it is there, then lists
    its groups and cuts 20 % of it by magnitude into FOLDER/cut: seconds, and the peak of resident anonymous memory, sampled every 20 ms.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

root = pathlib.Path(__file__).resolve().parent.parent
program = root / "build/release/bin/espalier"
inside = root / "build/release/bin/bench_structure"


def anonymous(pid):
    """Bytes of a process and its children; 0 once they are gone."""
    total = 0
    try:
        for line in open(f"/proc/{pid}/status"):
            if line.startswith("RssAnon:"):
                total += int(line.split()[1]) * 1024
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            total += sum(anonymous(int(child)) for child in (task / "children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        pass
    return total


def measured(*words):
    """Seconds, peak of anonymous memory and the answer of a call of the program."""
    begin = time.perf_counter()
    process = subprocess.Popen([program, *map(str, words), "--json"], stdout=subprocess.PIPE, text=True)
    peak, done = 0, threading.Event()

    def watch():
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, anonymous(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, _ = process.communicate()
    done.set()
    watcher.join()
    if process.returncode:
        sys.exit(f"espalier {words[1]} failed: {out}")
    return time.perf_counter() - begin, peak, json.loads(out.splitlines()[-1])


def torch_pruning_groups(model):
    import torch
    import torch_pruning
    begin = time.perf_counter()
    graph = torch_pruning.DependencyGraph().build_dependency(
        model, {"input_ids": torch.arange(8)[None], "use_cache": False}, output_transform=lambda out: out.logits.sum())
    count = sum(1 for _ in graph.get_all_groups(root_module_types=[torch.nn.Linear, torch.nn.Embedding]))
    return time.perf_counter() - begin, count


def speed(arguments):
    import torch
    from transformers import AutoModelForCausalLM
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        measured("model", "convert", arguments.model, scratch / "model.onnx")
        measured("model", "convert", arguments.model, scratch / "model")
        model = AutoModelForCausalLM.from_pretrained(scratch / "model", dtype=torch.float32).eval()
        spent = {}
        for _ in range(arguments.rounds):
            for kind, file in (("gguf", arguments.model), ("onnx", scratch / "model.onnx")):
                for what, words in (("groups", ("groups", file)),
                                    ("cut", ("cut", file, scratch / "cut.onnx", "--sparsity", "0.2", "--force"))):
                    spent.setdefault(f"{what}_{kind}", []).append(measured("model", *words)[0])
            parts = json.loads(subprocess.run([inside, scratch / "model.onnx", "1"], stdout=subprocess.PIPE, check=True, text=True).stdout)
            # From a graph in memory, as Torch-Pruning starts with a module in memory: types and shapes, classes, groups.
            spent.setdefault("groups_inside", []).append((parts["infer_ms"] + parts["classes_ms"] + parts["groups_ms"]) / 1000)
            seconds, count = torch_pruning_groups(model)
            spent.setdefault("torch_pruning_groups", []).append(seconds)
    medians = {name: round(statistics.median(values), 4) for name, values in spent.items()}
    ratio = round(medians["torch_pruning_groups"] / medians["groups_inside"], 1)
    print(json.dumps({"seconds": medians, "torch_pruning / ours, both inside": ratio, "groups": parts["groups"],
                      "groups of Torch-Pruning": count, "parts_ms": parts}))


def make(folder, layers):
    """Shards of one layer each, so that making it takes little memory, too."""
    import torch
    from safetensors.torch import save_file
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    wide, hidden, words = 4096, 11008, 32000
    shards = [{f"model.layers.{i}.{name}": shape for name, shape in (
        ("self_attn.q_proj.weight", (wide, wide)), ("self_attn.k_proj.weight", (wide, wide)), ("self_attn.v_proj.weight", (wide, wide)),
        ("self_attn.o_proj.weight", (wide, wide)), ("mlp.gate_proj.weight", (hidden, wide)), ("mlp.up_proj.weight", (hidden, wide)),
        ("mlp.down_proj.weight", (wide, hidden)), ("input_layernorm.weight", (wide,)), ("post_attention_layernorm.weight", (wide,)))}
        for i in range(layers)]
    shards.append({"model.embed_tokens.weight": (words, wide), "lm_head.weight": (words, wide), "model.norm.weight": (wide,)})
    index = {}
    for number, shard in enumerate(shards):
        name = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        save_file({key: torch.randn(shape).mul_(0.02).to(torch.bfloat16) for key, shape in shard.items()}, folder / name,
                  metadata={"format": "pt"})
        index.update({key: name for key in shard})
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": index}))
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": wide, "intermediate_size": hidden, "hidden_act": "silu",
        "num_attention_heads": 32, "num_key_value_heads": 32, "num_hidden_layers": layers, "vocab_size": words, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096, "tie_word_embeddings": False, "torch_dtype": "bfloat16"}))


def memory(arguments):
    model = arguments.folder / "model"
    if not model.exists():
        make(model, arguments.layers)
    size = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    for what, words in (("groups", ("groups", model)),
                        ("cut", ("cut", model, arguments.folder / "cut", "--sparsity", "0.2", "--dtype", "bf16", "--force"))):
        seconds, peak, answer = measured("model", *words)
        print(json.dumps({what: {"bytes": size, "seconds": round(seconds, 1), "peak_anonymous_bytes": peak,
                                 "parameters": answer["parameters"]}}), flush=True)


def main():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = words.add_subparsers(required=True)
    part = parts.add_parser("speed")
    part.add_argument("model", type=pathlib.Path)
    part.add_argument("--rounds", type=int, default=5)
    part.set_defaults(action=speed)
    part = parts.add_parser("memory")
    part.add_argument("folder", type=pathlib.Path)
    part.add_argument("--layers", type=int, default=32)
    part.set_defaults(action=memory)
    given = words.parse_args()
    given.action(given)


if __name__ == "__main__":
    main()
