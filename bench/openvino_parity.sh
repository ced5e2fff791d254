#!/bin/sh
# Perplexity of the f32 OpenVINO package against transformers (25.6765), and INT8 against f32 in quality and speed.
#   bench/openvino_parity.sh TEXT [MODEL.gguf]
# TEXT: the test split of WikiText-2 (raw), at least its first 19,968 tokens. Exits 1 when perplexity is more than
# 0.1 % off. ESPALIER names another build of the program.
set -e
[ $# -ge 1 ] || { sed -n '2,6p' "$0" >&2; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)
set -- "$(realpath "$1")" ${2:+"$(realpath "$2")"}
result=$("${ESPALIER:-$root/espalier}" run "$root/bench/openvino_parity.toml" --set text="$1" ${2:+--set model="$2"} --json | tail -n 1)
printf '%s\n' "$result" | python3 -c '
import json, sys
run = json.load(sys.stdin)
if not run.get("ok"):
    sys.exit("the recipe failed: " + json.dumps(run)[:2000])
figures = {stage["name"]: stage.get("figures") or {} for stage in run["stages"]}
expected, limit = 25.6765, 0.001
f32, int8, speed = figures["quality_f32"], figures["quality_int8"], figures["speed"]
off = f32["perplexity"] / expected - 1
print("perplexity  f32 package %.4f, transformers %.4f: %+.4f %% (limit 0.1 %%), %d tokens" % (f32["perplexity"], expected, 100 * off, f32["tokens"]))
print("perplexity  INT8 package %.4f: %+.2f %% of f32" % (int8["perplexity"], 100 * (int8["perplexity"] / f32["perplexity"] - 1)))
print("speed       INT8 over f32: %.2f x (prompt %.2f x, decode %.2f x); INT8 decodes %.1f tokens/s" % (speed["speedup"], speed["speedup_prefill"], speed["speedup_decode"], speed["decode_tokens_per_second"]))
sys.exit(0 if abs(off) <= limit else 1)'
