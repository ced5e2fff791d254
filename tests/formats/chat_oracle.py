"""Conversations as transformers' apply_chat_template writes and tokenizes them.

chat_oracle.py DIR SEED: for every format DIR/NAME.tokenizer.json, and DIR/cases.json: a list of {"format", "messages", "ids"}, with "counted"
(of each token, whether the assistant says it) where contents begin with no white space, which tokens would share with the header.
"""
import json
import pathlib
import random
import sys
import warnings

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import unicode_text

warnings.filterwarnings("ignore")
transformers.utils.logging.set_verbosity_error()


def turn(head, body):
    """One turn: `head`, then `body`, which transformers marks as generated where the assistant speaks."""
    return ("{% for m in messages %}" + head + "{% if m.role == 'assistant' %}{% generation %}" + body + "{% endgeneration %}"
            "{% else %}" + body + "{% endif %}{{ after }}{% endfor %}")


NEWLINE = "{% set after = '\\n' %}"
FORMATS = {
    "chatml": (NEWLINE + turn("{{ '<|im_start|>' + m.role + '\\n' }}", "{{ m.content + '<|im_end|>' }}"), ["<|im_start|>", "<|im_end|>"]),
    "llama3": ("{{ bos_token }}{% set after = '' %}" + turn("{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' }}",
                                                            "{{ m.content | trim + '<|eot_id|>' }}"),
               ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]),
    "zephyr": (NEWLINE + turn("{{ '<|' + m.role + '|>\\n' }}", "{{ m.content + eos_token }}"), []),
    "gemma": ("{{ bos_token }}" + NEWLINE + turn("{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' }}",
                                                 "{{ m.content | trim + '<end_of_turn>' }}"), ["<start_of_turn>", "<end_of_turn>"]),
}


def train(special):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=700, show_progress=False, special_tokens=["<s>", "</s>", *special],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([unicode_text.generate(20_000, 1) + "user assistant model system \n\n \n what is the answer to it? " * 50], trainer)
    return tokenizer


def conversations(source, system):
    plain = ["Hello!", "What is 2 + 2?\n\nShow it.", "4", "naïve 東京 🙂", "1\n2\n\n\n", "x", "it's the answer "]
    blank = ["", "  two spaces", "\n\nlines before", "\n", " \t ", "\u3000wide\u3000", "\x1cseparated\x1c"]
    for strange in (False, True):
        for length in (1, 2, 3, 5):
            contents = [source.choice(plain + blank if strange else plain) for _ in range(length)]
            if strange:
                contents[-1] = unicode_text.generate(120, source.randrange(10**6)).replace("<", "")
            messages = [{"role": "system", "content": contents.pop(0)}] if system and length > 2 else []
            messages += [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(contents)]
            yield messages, not strange


def main(folder, seed):
    source, cases = random.Random(seed), []
    for name, (template, special) in FORMATS.items():
        fast = train(special)
        file = folder / f"{name}.tokenizer.json"
        fast.save(str(file))
        document = json.loads(file.read_text())
        for token in document["added_tokens"]:
            token.update({"<s>": {"role": "bos"}, "</s>": {"role": "eos"}}.get(token["content"], {}))
        file.write_text(json.dumps(document))
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=fast, bos_token="<s>", eos_token="</s>")
        for messages, marks in conversations(source, name != "gemma"):
            made = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=True, return_dict=True,
                                                 return_assistant_tokens_mask=marks)
            case = {"format": name, "messages": messages, "ids": list(made["input_ids"])}
            if marks:
                case["counted"] = list(made["assistant_masks"])
            cases.append(case)
    (folder / "cases.json").write_text(json.dumps(cases))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
