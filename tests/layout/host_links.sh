#!/bin/sh
# The host program links neither LibTorch nor a plugin; a plugin exports one symbol and links only what it may.
build=$1
status=0
needs() { readelf -d "$1" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p'; }
if needs "$build/bin/espalier-graph" | grep -E 'torch|c10|openvino|libespalier_(run|worker)|onnx'; then echo "bin/espalier-graph links a runtime"; status=1; fi
if needs "$build/bin/espalier" | grep -E 'torch|c10|openvino|espalier-|onnx'; then echo "bin/espalier links a runtime"; status=1; fi
for plugin in "$build"/plugins/*.so; do
  [ -e "$plugin" ] || { echo "no plugins in $build/plugins"; exit 1; }
  foreign=$(needs "$plugin" | grep -vE '^(libespalier_(sdk|graph|formats|prune|run)|libc10|libtorch_cpu|libopenvino|libonnxruntime|libfmt|libstdc\+\+|libgcc_s|libc|libm|ld-linux.*)\.so')
  [ -z "$foreign" ] || { echo "$plugin links $foreign"; status=1; }
  exported=$(nm -D --defined-only "$plugin" | awk '$2 ~ /[TDBR]/ && $3 !~ /^(__bss_start|_edata|_end)$/ { print $3 }')
  [ "$exported" = espalier_plugin_v1 ] || { echo "$plugin exports: $exported"; status=1; }
  readelf -S "$plugin" | grep -q '\.espalier' || { echo "$plugin has no manifest"; status=1; }
done
exit $status
