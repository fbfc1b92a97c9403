"""Reading prose without a model: sentences, words, figures, names."""

import re
from collections import Counter

_SENTENCE = re.compile(r"(?<=[.!?])[\"')\]]?\s+(?=[\"'(\[]?[A-Z0-9])")
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]+")
_NUMBER = re.compile(r"(?<![\w.])\d[\d,.]*\d|(?<![\w.])\d")
_ABBREVIATION = re.compile(r"\b(?:Dr|Mr|Mrs|Ms|Prof|St|No|vs|e\.g|i\.e|approx|Inc|Ltd)\.$")
_STOP = """
a an and are as at be been but by can for from had has have he her his how i if in into is it its of on or our
she so than that the their them then there these they this to was we were what when where which who will with
would you your not no also only more most other some such very may each per about after before between both
did do does during over under up down out all any because could
"""
STOP_WORDS = frozenset(_STOP.split())


def stem(word: str) -> str:
    """A crude stem: enough to bring *writes*, *writing*, *written* close together."""
    word = word.lower().strip("'-")
    for ending in ("ations", "ation", "ings", "ing", "ers", "er", "ed", "es", "s", "e", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def words(text: str) -> list[str]:
    """Stems of the words that carry meaning."""
    return [stem(word) for word in _WORD.findall(text) if word.lower() not in STOP_WORDS]


def sentences(text: str) -> list[str]:
    """Sentences of running text; headings, tables and list marks are left out."""
    found: list[str] = []
    text = _with_headings_apart(text)
    for block in re.split(r"\n\s*\n|\n(?=\s*[-*#|])", text):
        lines = [line.strip() for line in block.strip().splitlines()]
        lines = [line for line in lines if line and not line.startswith(("#", "|", "```"))]
        joined = re.sub(r"^[-*+]\s+|^\d+[.)]\s+", "", " ".join(lines))
        joined = re.sub(r"\s+", " ", joined.replace("**", "").replace("`", "")).strip()
        pieces: list[str] = []
        for piece in _SENTENCE.split(joined):
            if pieces and _ABBREVIATION.search(pieces[-1]):
                pieces[-1] += f" {piece}"
            else:
                pieces.append(piece)
        found += [
            piece.strip() for piece in pieces if len(piece.split()) >= 4 and piece.rstrip()[-1:] in ".!?\"'"
        ]
    return list(dict.fromkeys(found))


def _with_headings_apart(text: str) -> str:
    """Text out of a PDF has no blank lines: a short line without a full stop ends its block."""
    lines = text.splitlines()
    longest = max((len(line) for line in lines), default=0)
    parted: list[str] = []
    for line in lines:
        bare = line.strip()
        if bare and len(bare) < longest * 0.6 and bare[-1] not in ".,;:!?":
            parted += ["", line, ""]
        else:
            parted.append(line)
    return "\n".join(parted)


def _is_full(piece: str) -> bool:
    return len(piece.split()) >= 4 and piece.rstrip()[-1:] in ".!?\"'"


def title(text: str) -> str:
    """The first heading, else the first line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in lines:
        if line.startswith("#"):
            return line.lstrip("# ").strip()[:120]
    return lines[0].rstrip(".")[:120] if lines else "Untitled"


def ranked(text: str) -> list[str]:
    """Sentences, best first: frequent words, figures and an early place count."""
    found = sentences(text)
    weight = Counter(word for sentence in found for word in set(words(sentence)))

    def score(item: tuple[int, str]) -> float:
        place, sentence = item
        carried = words(sentence)
        if not carried:
            return 0.0
        density = sum(weight[word] for word in carried) / len(carried)
        figures = 1.5 if _NUMBER.search(sentence) else 0.0
        length = -2.0 if len(sentence.split()) > 45 else 0.0
        return density + figures + length + 2.0 / (1 + place)

    return [sentence for _, sentence in sorted(enumerate(found), key=score, reverse=True)]


def in_order(chosen: list[str], text: str) -> list[str]:
    """``chosen`` sentences in the order of the text."""
    place = {sentence: index for index, sentence in enumerate(sentences(text))}
    return sorted(chosen, key=lambda sentence: place.get(sentence, 0))


def numbers(text: str) -> set[str]:
    """Figures as written, without thousands separators and trailing points."""
    return {found.rstrip(".,").replace(",", "") for found in _NUMBER.findall(text)}


def names(text: str) -> set[str]:
    """Capitalised words inside sentences: people, places, products."""
    found: set[str] = set()
    for sentence in sentences(text):
        for place, token in enumerate(sentence.split()):
            bare = token.strip(".,;:!?\"'()[]*_\u201c\u201d\u2018\u2019")
            inside = place > 0 and sentence.split()[place - 1][-1:] not in '.:!?"\u201c'
            if inside and re.fullmatch(r"[A-Z][a-z]+(?:[-'][A-Za-z]+)*|[A-Z]{2,}[0-9]*", bare):
                found.add(bare.removesuffix("'s"))
    return found
