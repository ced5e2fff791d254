"""Generated text for tokenizer comparisons: words, digits, blanks, every block of Unicode, special tokens and their parts."""
import random
import sys
import unicodedata

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


def english(size, seed):
    """Sentences that look like English: stems with endings, a Zipf-like choice, numbers, quotes, contractions."""
    source = random.Random(seed)
    stems = ["".join(source.choice(["th", "st", "gr", "b", "l", "m", "pr", "w", "tr", "s"]) + source.choice(["a", "e", "i", "o", "ea", "u"])
                     + source.choice(["r", "n", "ck", "ll", "d", "m", "sh"]) for _ in range(source.choice([1, 1, 2]))) for _ in range(300)]
    words = ["the", "of", "and", "a", "to", "in", "don't", "it's", "we've", "they're", "I", "Mr."] + stems
    parts, length = [], 0
    while length < size:
        word = words[min(int(source.paretovariate(0.7)) - 1, len(words) - 1)] + source.choice(["", "", "", "ed", "ing", "s"])
        if source.random() < 0.1:
            word = word.capitalize()
        if source.random() < 0.03:
            word = str(source.randrange(3000))
        part = word + source.choice([" "] * 12 + [", ", ". ", "; ", ".\n", " - ", ' "', "? ", "! ", "\n\n", "  "])
        parts.append(part)
        length += len(part)
    return "".join(parts)


def marked(size, seed):
    """Letters of every script with marks in every order, jamo, joiners: what normal forms move about."""
    source = random.Random(seed)
    marks = [chr(c) for c in range(0x300, 0x1F000) if unicodedata.combining(chr(c))]
    bases = list("aeioucnAÅéǖ가각각אب") + ["\u09c7", "\u1100", "\u1161", "\u11a8", "\u0344", "\u2126", "\ufb2a", "\u1d15e", "\U0001d15e", "か", "ㇰ"]
    parts, length = [], 0
    while length < size:
        part = source.choice(bases) + "".join(source.choice(marks) for _ in range(source.choice([0, 1, 1, 2, 3, 9])))
        parts.append(part + source.choice(["", "", " ", "\u200d", "\u0600"]))
        length += len(parts[-1].encode())
    return "".join(parts)


def sweep(first=0, last=0x110000, step=1, around="a{}b "):
    """Every `step`th character of a range between letters."""
    return "".join(around.format(chr(c)) for c in range(first, last, step) if not 0xD800 <= c <= 0xDFFF)


if __name__ == "__main__":
    sys.stdout.buffer.write(generate(int(sys.argv[1]), int(sys.argv[2])).encode())
