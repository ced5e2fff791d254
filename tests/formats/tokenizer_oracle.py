"""Ids of Hugging Face's tokenizers, as an oracle.

  tokenizer_oracle.py small DIR SEED    trains a small byte-level BPE on generated text, writes DIR/tokenizer.json, DIR/text, DIR/ids
  tokenizer_oracle.py ids JSON TEXT OUT ids of TEXT under the tokenizer.json JSON, as little-endian int32
  tokenizer_oracle.py text BYTES SEED OUT
"""
import pathlib
import sys

import numpy
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import unicode_text


def write_ids(tokenizer, text, out):
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    numpy.array(ids, dtype="<i4").tofile(out)


def small(folder, seed):
    llama3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
              r"|\s+(?!\S)|\s+")
    cuts = {
        "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
        "prefix": pre_tokenizers.ByteLevel(add_prefix_space=True),
        "digits": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                           pre_tokenizers.ByteLevel(add_prefix_space=False)]),
        "runs": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=False),
                                         pre_tokenizers.ByteLevel(add_prefix_space=False)]),
        "split": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(llama3), "isolated"),
                                          pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]),
        "removed": pre_tokenizers.Sequence([pre_tokenizers.Split(" ", "removed"),
                                            pre_tokenizers.Split(Regex(r"\p{L}+|\s+|[^\s\p{L}]+"), "removed", invert=True),
                                            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]),
    }
    train = unicode_text.generate(60_000, seed) + "the naïve theory of the thing in 1999 and 2000 it's " * 50
    text = unicode_text.generate(30_000, seed + 1)
    for name, cut in cuts.items():
        tokenizer = Tokenizer(models.BPE(ignore_merges=name == "split"))
        tokenizer.pre_tokenizer = cut
        tokenizer.decoder = decoders.ByteLevel()
        full = name != "removed"  # one alphabet with holes: bytes that have no token
        trainer = trainers.BpeTrainer(vocab_size=900, show_progress=False, special_tokens=["<|im_start|>", "<|im_end|>"],
                                      initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if full else list("abcdefĠ"))
        tokenizer.train_from_iterator([train if full else "the naive theory of it " * 20], trainer)
        tokenizer.add_tokens([AddedToken("東京", normalized=False), AddedToken("the", single_word=True, normalized=False),
                              AddedToken("naïve", lstrip=True, normalized=False), AddedToken("—", rstrip=True, normalized=True)])
        target = pathlib.Path(folder) / name
        target.mkdir(parents=True, exist_ok=True)
        tokenizer.save(str(target / "tokenizer.json"), pretty=name == "gpt2")
        (target / "text").write_bytes(text.encode())
        write_ids(tokenizer, text, target / "ids")
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        (target / "decoded").write_bytes(tokenizer.decode(ids, skip_special_tokens=True).encode())


def main():
    if sys.argv[1] == "small":
        small(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1] == "ids":
        write_ids(Tokenizer.from_file(sys.argv[2]), pathlib.Path(sys.argv[3]).read_bytes().decode("utf-8", "replace"), sys.argv[4])
    elif sys.argv[1] == "text":
        pathlib.Path(sys.argv[4]).write_bytes(unicode_text.generate(int(sys.argv[2]), int(sys.argv[3])).encode())
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
