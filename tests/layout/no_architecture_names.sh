#!/bin/sh
# No architecture's name outside framework/formats and pipelines/: pruning, running and deploying must not know what they work on.
cd "$1" || exit 2
# Chat formats are called after who made them, and no model is needed for one.
found=$(grep -rniP '\b(llama|smollm|qwen|mistral|gemma|gpt-?|bert|resnet|mobilenet|falcon|bloom|whisper)[0-9.]*\b' framework plugins \
  --include='*.cpp' --include='*.h' --include='*.h.in' --include='*.txt' | grep -v '^framework/formats/' |
  grep -viE 'et al\.|arxiv|llm-pruner|paper|"choices": \["chatml"')
[ -z "$found" ] && exit 0
printf 'an architecture is named outside framework/formats:\n%s\n' "$found"
exit 1
