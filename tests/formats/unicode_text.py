"""Generated text for tokenizer comparisons: words, digits, blanks, every block of Unicode, special tokens and their parts."""
import random
import sys

BLANKS = [" ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u2003", "\u3000", "\u180e", "\u200b", "\u0085", "\x0b", "\x1c", "   ", "\u2028"]
WORDS = ["the", "don't", "I'LL", "we've", "it's", "naïve", "Straße", "ſ", "x's", "'s", "''", "ЖЗЛ", "東京", "한국어", "नमस्ते", "עברית",
         "ไทย", "e\u0301", "🙂", "👩‍👩‍👧", "1234", "٣٤٥", "½", "Ⅻ", "a1b2", "...", "—", "http://x.y/z?q=1", "İ", "ǅ", "ﬁ"]
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_", "|>", "<repo_name>", "<reponame>", "<", "<|", "<file_sep><file_sep>"]


def code_point(source):
    while True:
        top = source.choice([0x80, 0x100, 0x800, 0x3000, 0x10000, 0x20000, 0x40000, 0x110000])
        point = source.randrange(top)
        if not 0xD800 <= point <= 0xDFFF:
            return chr(point)


def generate(size, seed):
    source = random.Random(seed)
    parts, length = [], 0
    while length < size:
        kind = source.random()
        if kind < 0.45:
            part = code_point(source) * source.choice([1, 1, 1, 2, 7])
        elif kind < 0.65:
            part = source.choice(BLANKS) * source.choice([1, 1, 2, 5])
        elif kind < 0.95:
            part = source.choice(WORDS)
        else:
            part = source.choice(SPECIAL)
        parts.append(part)
        length += len(part.encode())
    return "".join(parts)


if __name__ == "__main__":
    sys.stdout.buffer.write(generate(int(sys.argv[1]), int(sys.argv[2])).encode())
