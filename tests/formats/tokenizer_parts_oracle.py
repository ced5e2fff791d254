"""Every part of a tokenizer.json as Hugging Face's tokenizers do it.

  tokenizer_parts_oracle.py models DIR SEED     tokenizers of each kind, trained on generated text
  tokenizer_parts_oracle.py cuts DIR SEED       normalizers and pre-tokenizers before a model that spells: an id for each byte, and
                                                for whether a word begins with it
  tokenizer_parts_oracle.py decoders DIR SEED   decoders on random tokens
  tokenizer_parts_oracle.py vocabularies DIR SEED   BERT's vocab.txt instead of a tokenizer.json

Each tokenizer is a folder with tokenizer.json and cases.json: texts (hexadecimal, not always UTF-8) with their ids, the ids with
what goes around them, the same of neighbouring texts as pairs, and what the ids decode to. Texts on which they panic (inserting
at the end of one) are left out. DIR/sweep of `cuts` is a text for all its tokenizers, with ids in sweep.ids (little-endian u16).
"""
import array
import json
import os
import pathlib
import random
import sys
import unicodedata

os.environ["RUST_BACKTRACE"] = "0"

from tokenizers import AddedToken, BertWordPieceTokenizer, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import unicode_text
from charsmap import charsmap

EDGES = ["", " ", "   ", "\n", "a", " a", "a ", "  a  b  ", "\u3000", "\u200b", "\ufeffa", "a\0b", "▁", "▁▁a ▁ b", " ▁a", "##a ##", "<unk>", "<unk><unk>",
         "[UNK] [CLS]", "<0x41>", "``a'' b", "a.b.c...", "don't", "...", "x" * 300, "ab" * 700, " " * 300, "🙂🙂", "👩‍👩‍👧‍👦 👍🏽",
         "<s>", " <s> a", "a<s>b <s>", "e\u0301", "\u0301e", "가힣ᄀ", "\r\n\r\n", "A B\tC", "İıſ", "1 2a33 ٤٥", "日本語テキスト", "a\u00adb"]
RAW = [b"\xff", b"a\xc3 b", b"\xe2\x82\xe2", b"\xf0\x9f\x98 \xed\xa0\x80 end", b" \xc0\xaf"]


def texts_for(seed, size=4000):
    texts = EDGES + [unicode_text.english(size, seed), unicode_text.generate(size, seed + 1), unicode_text.marked(size, seed + 2)]
    return [text.encode() for text in texts] + RAW


def encoded(tokenizer, text, **options):
    try:
        return tokenizer.encode(text, **options)
    except BaseException as error:  # a panic is no Exception
        if type(error).__name__ != "PanicException":
            raise
        return None


def write(folder, tokenizer, texts, decode=True, sweep=None):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(tokenizer, dict):
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    elif isinstance(tokenizer, Tokenizer):
        tokenizer.save(str(folder / "tokenizer.json"))
    cases, before = [], ""
    for raw in texts:
        text = raw.decode("utf-8", "replace")
        bare, framed = encoded(tokenizer, text, add_special_tokens=False), encoded(tokenizer, text)
        if bare is None:
            continue
        case = {"text": raw.hex(), "ids": bare.ids, "framed": framed.ids, "segments": framed.type_ids}
        if len(raw) < 100:
            pair = tokenizer.encode(before, text)
            case |= {"before": before.encode().hex(), "pair": pair.ids, "pair_segments": pair.type_ids}
            before = text
        if decode and bare.ids:
            case |= {"decoded": tokenizer.decode(framed.ids, skip_special_tokens=False),
                     "skipped": tokenizer.decode(framed.ids, skip_special_tokens=True)}
        cases.append(case)
    (folder / "cases.json").write_text(json.dumps(cases))
    if sweep is not None and (swept := encoded(tokenizer, sweep, add_special_tokens=False)):
        (folder / "sweep.ids").write_bytes(array.array("H", swept.ids).tobytes())


def compatibility_map():
    """Something like SentencePiece's nmt_nfkc: compatibility characters, composed sequences, and characters that go away."""
    replacements = {"\r\n": " ", "\r": " ", "\n": " ", "\t": " ", "\u200b": " ", "\u00ad": "", "\u0001": "", "\ufeff": "", "\u0600": "N", "©": "(c)",
                    "\u0301": "´", "a": "a"}
    for c in [*range(0xA0, 0x250), *range(0x1E00, 0x1EFA), *range(0xFB00, 0xFB07), *range(0xFF01, 0xFF5F), *range(0x2460, 0x2480)]:
        for source in {chr(c), unicodedata.normalize("NFD", chr(c))}:
            if unicodedata.normalize("NFKC", source) != source:
                replacements[source] = unicodedata.normalize("NFKC", source)
    return charsmap(replacements)


def part(kind, **members):
    return {"type": kind, **members}


def document(model, **parts):
    base = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
            "post_processor": None, "decoder": None}
    return base | parts | {"model": model}


def train(model, trainer, seed, **parts):
    tokenizer = Tokenizer(model)
    for name, value in parts.items():
        setattr(tokenizer, name, value)
    tokenizer.train_from_iterator([unicode_text.english(60_000, seed), "naïve Straße 東京 한국어 the ▁ x " * 30], trainer)
    return tokenizer


def models_of_each_kind(folder, seed):
    texts = texts_for(seed)
    template = processors.TemplateProcessing
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    charsmap_json = part("Precompiled", precompiled_charsmap=compatibility_map())
    precompiled = Tokenizer.from_str(json.dumps(document(part("BPE", vocab={}, merges=[]), normalizer=charsmap_json))).normalizer
    kinds = {}

    def bert(name, normalizer, decoder, processor=None, pre=None, **options):
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        tokenizer = train(models.WordPiece(unk_token="[UNK]", **options),
                          trainers.WordPieceTrainer(vocab_size=900, show_progress=False, special_tokens=special), seed,
                          normalizer=normalizer, pre_tokenizer=pre or pre_tokenizers.BertPreTokenizer(), decoder=decoder)
        tokenizer.post_processor = processor or template(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
                                                         special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
        kinds[name] = tokenizer

    bert("bert", normalizers.BertNormalizer(), decoders.WordPiece())
    bert("bert-cased", normalizers.BertNormalizer(lowercase=False, handle_chinese_chars=False), decoders.WordPiece(cleanup=False),
         processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2)), max_input_chars_per_word=7)
    bert("bert-words", normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()]),
         decoders.WordPiece(), pre=pre_tokenizers.Whitespace())
    bert("bert-added", normalizers.BertNormalizer(), decoders.WordPiece())
    kinds["bert-added"].add_tokens([AddedToken("Don't", normalized=True), AddedToken("ÉTÉ", normalized=True, single_word=True),
                                    AddedToken("東", normalized=False, lstrip=True, rstrip=True)])
    kinds["bert-added"].add_special_tokens([AddedToken("Mark", normalized=True), AddedToken("LOW", normalized=False)])

    def unigram(name, normalizer, pre, decoder, byte_fallback=False, **options):
        tokenizer = train(models.Unigram(), trainers.UnigramTrainer(vocab_size=500, show_progress=False, unk_token="<unk>",
                                                                    special_tokens=["<s>", "<pad>", "</s>", "<unk>"]), seed,
                          normalizer=normalizer, pre_tokenizer=pre, decoder=decoder,
                          post_processor=template(single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]))
        described = json.loads(tokenizer.to_str())
        described["model"]["byte_fallback"] = byte_fallback
        if byte_fallback:
            described["model"]["vocab"] += [[b, -50.0 - 0.01 * i] for i, b in enumerate(bytes_)]
        described["model"] |= options
        kinds[name] = described

    meta = pre_tokenizers.Metaspace
    unigram("xlm-roberta", precompiled, meta(), decoders.Metaspace())
    unigram("t5", normalizers.Sequence([precompiled, normalizers.Strip(left=False), normalizers.Replace(Regex(" {2,}"), "▁")]), meta(prepend_scheme="first"),
            decoders.Metaspace(prepend_scheme="first"))
    unigram("albert", normalizers.Sequence([normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(),
                                            normalizers.StripAccents(), normalizers.Lowercase(), precompiled]),
            pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), meta()]), decoders.Metaspace())
    unigram("byte-fallback", normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()]), meta(prepend_scheme="never", split=False),
            decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]), byte_fallback=True)

    def pairs(name, byte_fallback=True, special=("<unk>", "<s>", "</s>"), tokens=bytes_, model=None, trainer=None, **parts):
        model = model or models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=byte_fallback)
        trainer = trainer or trainers.BpeTrainer(vocab_size=900, show_progress=False, special_tokens=[*special, *tokens], limit_alphabet=70)
        learned = {key: value for key, value in parts.items() if key != "post_processor"}
        described = json.loads(train(model, trainer, seed, **learned).to_str())
        described["added_tokens"] = [token for token in described["added_tokens"] if not token["content"].startswith("<0x")]
        if "post_processor" in parts:
            described["post_processor"] = parts["post_processor"]
        kinds[name] = described

    spm_decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    bos = part("TemplateProcessing", single=[{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
               pair=[{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                     {"SpecialToken": {"id": "<s>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
               special_tokens={"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}})
    pairs("mistral", pre_tokenizer=meta(prepend_scheme="first", split=True), decoder=spm_decoder, post_processor=bos)
    # The same tokens as one word, the older way: the blanks' marks come from the normalizer.
    kinds["llama"] = kinds["mistral"] | {"pre_tokenizer": None, "normalizer": part("Sequence", normalizers=[
        part("Prepend", prepend="▁"), part("Replace", pattern={"String": " "}, content="▁")])}
    kinds["llama-whole"] = kinds["mistral"] | {"pre_tokenizer": part("Metaspace", replacement="▁", prepend_scheme="always", split=False)}
    pairs("gemma", normalizer=normalizers.Replace(" ", "▁"), pre_tokenizer=pre_tokenizers.Split(" ", "merged_with_previous"),
          decoder=decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]))
    pairs("across-blanks", normalizer=normalizers.Replace(" ", "▁"), decoder=spm_decoder)  # tokens with a mark within: one word it stays
    pairs("some-bytes", tokens=bytes_[:0xC8], pre_tokenizer=meta(), decoder=spm_decoder)
    pairs("no-bytes", byte_fallback=False, tokens=(), pre_tokenizer=meta(), decoder=decoders.Metaspace())
    pairs("no-fusing", tokens=(), model=models.BPE(unk_token="<unk>"), pre_tokenizer=pre_tokenizers.WhitespaceSplit(), decoder=decoders.Fuse())
    pairs("nothing-unknown", tokens=(), model=models.BPE(), pre_tokenizer=pre_tokenizers.Punctuation())
    clip = r"<\|startoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    pairs("clip", tokens=(), model=models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"),
          trainer=trainers.BpeTrainer(vocab_size=900, show_progress=False, special_tokens=["<unk>", "<s>", "</s>"], end_of_word_suffix="</w>",
                                      initial_alphabet=pre_tokenizers.ByteLevel.alphabet()),
          normalizer=normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]),
          pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(clip), "removed", invert=True),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False)]), decoder=decoders.BPEDecoder("</w>"),
          post_processor=part("RobertaProcessing", sep=["</s>", 2], cls=["<s>", 1], trim_offsets=False, add_prefix_space=False))
    pairs("prefixed", tokens=(), model=models.BPE(unk_token="<unk>", continuing_subword_prefix="##"),
          trainer=trainers.BpeTrainer(vocab_size=900, show_progress=False, special_tokens=["<unk>"], continuing_subword_prefix="##"),
          pre_tokenizer=pre_tokenizers.BertPreTokenizer(), decoder=decoders.WordPiece())
    pairs("bytes-first", tokens=(), model=models.BPE(), normalizer=normalizers.Sequence([normalizers.NFC(), normalizers.ByteLevel()]),
          trainer=trainers.BpeTrainer(vocab_size=900, show_progress=False, special_tokens=["<s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()),
          pre_tokenizer=pre_tokenizers.Split("Ġ", "merged_with_next"), decoder=decoders.ByteLevel(),
          post_processor=part("Sequence", processors=[part("ByteLevel", add_prefix_space=True, trim_offsets=False, use_regex=True)]))
    for name, tokenizer in kinds.items():
        write(pathlib.Path(folder) / name, tokenizer, texts)


def vocabularies(folder, seed):
    texts = texts_for(seed)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    for lower in (True, False):
        tokenizer = train(models.WordPiece(unk_token="[UNK]"), trainers.WordPieceTrainer(vocab_size=700, show_progress=False, special_tokens=special),
                          seed, normalizer=normalizers.BertNormalizer(lowercase=lower), pre_tokenizer=pre_tokenizers.BertPreTokenizer())
        target = pathlib.Path(folder) / ("lower" if lower else "cased")
        target.mkdir(parents=True, exist_ok=True)
        lines = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
        (target / "vocab.txt").write_text("".join(token + ("\n" if lower else "\r\n") for token, _ in lines))
        if not lower:
            (target / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False, "strip_accents": True, "tokenize_chinese_chars": False,
                                                                      "unk_token": {"content": "[UNK]"}, "cls_token": "[CLS]"}))
        write(target, BertWordPieceTokenizer(str(target / "vocab.txt"), lowercase=lower, strip_accents=None if lower else True, handle_chinese_chars=lower),
              texts)


def spelling():
    """A model without merges: one id for each byte where a word begins, another within words."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(letters + ["##" + letter for letter in letters])}
    return part("BPE", vocab=vocab, merges=[], continuing_subword_prefix="##", dropout=None, unk_token=None, end_of_word_suffix=None,
                fuse_unk=False, byte_fallback=False)


def cuts(folder, seed):
    regex = lambda pattern: {"Regex": pattern}  # noqa: E731
    replace = lambda pattern, content: part("Replace", pattern=pattern, content=content)  # noqa: E731
    bert = lambda clean, chinese, accents, lower: part("BertNormalizer", clean_text=clean, handle_chinese_chars=chinese,  # noqa: E731
                                                       strip_accents=accents, lowercase=lower)
    before = {name.lower(): part(name) for name in ["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "ByteLevel"]}
    before |= {"bert": bert(True, True, None, True), "bert-clean": bert(True, False, None, False), "bert-chinese": bert(False, True, None, False),
               "bert-accents": bert(False, False, True, False), "bert-lower": bert(False, False, False, True)}
    before |= {f"strip-{left}-{right}": part("Strip", strip_left=left, strip_right=right) for left in (True, False) for right in (True, False)}
    before |= {"prepend": part("Prepend", prepend="▁x"), "precompiled": part("Precompiled", precompiled_charsmap=compatibility_map())}
    patterns = {"space": {"String": " "}, "dot": {"String": "."}, "spaces": regex(r"\s+"), "word": regex(r"\w"), "bounds": regex(r"\b"),
                "within": regex(r"\B"), "line": regex("^"), "end": regex("$"), "digit": regex(r"\d"), "hex": regex(r"\h"), "punct": regex(r"[[:punct:]]"),
                "not-word": regex(r"[^\w\s]"), "mark": regex(r"\p{M}"), "symbol": regex(r"\p{S}|\p{P}"), "capital": regex(r"(?=\p{Lu})"),
                "categories": regex(r"[\p{Ll}\p{Lm}\p{Lo}]+|\p{^L}"), "bracket": regex(r"[]a-c]"), "case": regex("(?i:straße|the)"), "empty": {"String": ""},
                "not-space": regex(r"\S"), "not-letter": regex(r"\P{L}+"), "group": regex(r"(a)(b)?|(c)")}
    before |= {f"replace-{name}": replace(pattern, "<é>") for name, pattern in patterns.items() if name not in ("line", "empty")}
    before |= {"sequence": part("Sequence", normalizers=[part("NFKD"), replace({"String": "a"}, ""), part("Sequence", normalizers=[part("NFC")])])}
    every = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
    after = {name.lower(): part(name) for name in ["Whitespace", "WhitespaceSplit", "BertPreTokenizer"]}
    after |= {f"digits-{each}": part("Digits", individual_digits=each) for each in (True, False)}
    after |= {f"punctuation-{behavior}": part("Punctuation", behavior=behavior) for behavior in every}
    after |= {f"meta-{scheme}-{split}": part("Metaspace", replacement="▁", prepend_scheme=scheme, split=split)
              for scheme in ("always", "first", "never") for split in (True, False)}
    after |= {f"split-{behavior}-{invert}": part("Split", pattern=regex(r"\p{L}+|[.,]"), behavior=behavior, invert=invert)
              for behavior in every for invert in (True, False)}
    after |= {f"split-{name}": part("Split", pattern=pattern, behavior="Isolated", invert=False) for name, pattern in patterns.items()}
    after |= {"split-empty-next": part("Split", pattern=regex(r"(?=\p{Lu})"), behavior="MergedWithNext", invert=False),
              "split-empty-previous": part("Split", pattern=regex(r"(?=\p{Lu})|\s"), behavior="MergedWithPrevious", invert=True)}
    after |= {"delimiter": part("CharDelimiterSplit", delimiter="é"), "byte-level": part("ByteLevel", add_prefix_space=True, trim_offsets=True, use_regex=True),
              "first-word": part("Sequence", pretokenizers=[part("WhitespaceSplit"), part("Metaspace", replacement="▁", prepend_scheme="first", split=True)])}
    spell = part("ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=False)
    # Every character below the ideographs, and one in 331 of the others, for the parts that ask what a character is.
    texts, sweep = texts_for(seed, 1500), unicode_text.sweep(0, 0x3400) + unicode_text.sweep(0x3400 + seed, 0x110000, 331)
    blind = ("strip-", "prepend", "sequence", "meta-", "split-M", "split-I", "split-R", "split-C", "delimiter", "first-", "punctuation-M", "punctuation-R",
             *(f"{kind}-{name}" for kind in ("replace", "split") for name in ("space", "dot", "line", "end", "bracket", "case", "empty", "group")))
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    (pathlib.Path(folder) / "sweep").write_bytes(sweep.encode())
    for name, normalizer in before.items():
        parts = {"normalizer": normalizer, "pre_tokenizer": None if name == "bytelevel" else spell}
        write(pathlib.Path(folder) / f"n-{name}", document(spelling(), **parts), texts, decode=False, sweep=None if name.startswith(blind) else sweep)
    for name, pre in after.items():
        pre = pre if name == "byte-level" else part("Sequence", pretokenizers=[pre, spell])
        write(pathlib.Path(folder) / f"p-{name}", document(spelling(), pre_tokenizer=pre), texts, decode=False,
              sweep=None if name.startswith(blind) else sweep)
    # Where "first" holds: the first character may be gone.
    for name, normalizer in {"strip": part("Strip", strip_left=True, strip_right=False), "clean": bert(True, True, True, True),
                             "pattern": replace(regex("^ +"), ""), "two": replace(regex(" {2,}"), "x"), "form": part("NFKD")}.items():
        first = part("Sequence", pretokenizers=[after["meta-first-True"], spell])
        write(pathlib.Path(folder) / f"first-{name}", document(spelling(), normalizer=normalizer, pre_tokenizer=first), texts_for(seed, 500), decode=False)


def decoded(folder, seed):
    source = random.Random(seed)
    tokens = ["a", "▁a", "▁", "▁▁", "##b", "##", "c</w>", "</w>", "Ġd", "ĠĠ", "Ċ", "Ã©", "Ã", "<0x41>", "<0xC3>", "<0xA9>", "<0xFF>", "<0x0a>", "<0x4>", "<0xZZ>", ".", "?",
              "n't", "'s", "'", "do not", " x", "x ", "  x  ", " ", "é", "日本", "xax", "", "▁.", "ve", "'ve", "<s>"]
    replace = part("Replace", pattern={"String": "▁"}, content=" ")
    kinds = {"none": None, "bytelevel": part("ByteLevel", add_prefix_space=True, trim_offsets=True, use_regex=True),
             "wordpiece": part("WordPiece", prefix="##", cleanup=True), "wordpiece-raw": part("WordPiece", prefix="##", cleanup=False),
             "bpe": part("BPEDecoder", suffix="</w>"), "fallback": part("ByteFallback"), "fuse": part("Fuse"), "replace": replace,
             "regex": part("Replace", pattern={"Regex": "x|^a|(?=b)"}, content="-"),
             "strip": part("Strip", content=" ", start=1, stop=0), "strip-fused": part("Sequence", decoders=[part("Fuse"), part("Strip", content="a", start=3, stop=0)]),
             "llama": part("Sequence", decoders=[replace, part("ByteFallback"), part("Fuse"), part("Strip", content=" ", start=1, stop=0)])}
    kinds |= {f"metaspace-{scheme}": part("Metaspace", replacement="▁", prepend_scheme=scheme, split=True) for scheme in ("always", "first", "never")}
    special = {"id": len(tokens) - 1, "content": "<s>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    for name, decoder in kinds.items():
        described = document(part("BPE", vocab={t: i for i, t in enumerate(tokens)}, merges=[]), decoder=decoder, added_tokens=[special])
        tokenizer = Tokenizer.from_str(json.dumps(described))
        target = pathlib.Path(folder) / name
        target.mkdir(parents=True, exist_ok=True)
        (target / "tokenizer.json").write_text(json.dumps(described))
        lists = [[i] for i in range(len(tokens))] + [[source.randrange(len(tokens) + 2) for _ in range(source.randrange(1, 12))] for _ in range(400)]
        (target / "cases.json").write_text(json.dumps([{"framed": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False),
                                                        "skipped": tokenizer.decode(ids, skip_special_tokens=True)} for ids in lists]))


if __name__ == "__main__":
    {"models": models_of_each_kind, "cuts": cuts, "decoders": decoded, "vocabularies": vocabularies}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
