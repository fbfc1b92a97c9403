"""What the rehearsal model can do with text: note, draft, tighten, check, extract."""

import re
from enum import StrEnum

from agent2389.llm.rehearsal_text import in_order, names, numbers, ranked, sentences, title, words

NOTES = 12
NOTES_CHARACTERS = 1700
LONG_SENTENCE = 32
MARK = "Rehearsal model (offline, rules only):"
_FILLERS = (
    (r"\bin order to\b", "to"),
    (r"\bdue to the fact that\b", "because"),
    (r"\bat this point in time\b", "now"),
    (r"\bit (?:should be|is) (?:noted|worth noting) that\s+", ""),
    (r"\b(?:very|really|quite|basically|actually)\s+", ""),
    (r"\ba (?:large|great) number of\b", "many"),
)


class Kind(StrEnum):
    """The kind of step, and of the text that comes out of it."""

    NOTES = "notes"
    DRAFT = "draft"
    EDITED = "edited text"
    VERDICT = "verdict"
    EXTRACT = "extract"


STEMS: dict[Kind, frozenset[str]] = {
    Kind.NOTES: frozenset(
        words("research researcher read gather extract facts findings investigate collect sources note notes")
    ),
    Kind.DRAFT: frozenset(
        words("write writes writing writer draft drafts drafting compose brief report article essay summary")
    ),
    Kind.EDITED: frozenset(
        words("edit edits editing editor tighten polish rewrite rewrites shorten clarity improve")
    ),
    Kind.VERDICT: frozenset(
        words("judge judges judging check checks checked verify verifies review approve reject unsupported")
    ),
}


def kind_of(text: str) -> Kind | None:
    """Whose words come first in a role's description."""
    for word in words(text):
        for kind, stems in STEMS.items():
            if word in stems:
                return kind
    return None


def marked(kind: Kind, body: str) -> str:
    """The body with the one line that says who made it, and how."""
    return f"*{MARK} {kind}.*\n\n{body.strip()}\n"


def unmarked(text: str) -> str:
    """A text without the marks of earlier rehearsal steps."""
    return re.sub(rf"^\*{re.escape(MARK)}[^\n]*\n*", "", text, flags=re.MULTILINE)


def marks(text: str) -> set[Kind]:
    """The kinds of rehearsal steps that a text says it went through."""
    return {kind for kind in Kind if f"*{MARK} {kind}.*" in text}


def notes(source: str) -> str:
    """Extractive notes: the sentences that carry most, quoted, and those with figures."""
    chosen: list[str] = []
    size = 0
    for sentence in ranked(source):
        if len(chosen) == NOTES or size + len(sentence) > NOTES_CHARACTERS:
            break
        chosen.append(sentence)
        size += len(sentence)
    lines = [f"- {sentence}" for sentence in in_order(chosen, source)]
    return f"# Notes: {title(source).removeprefix('Notes: ')}\n\n" + "\n".join(
        lines or ["- (no full sentences)"]
    )


def draft(source: str) -> str:
    """A text of the facts in ``source`` only: in brief, what was found, the figures."""
    facts = sentences(source)
    if not facts:
        return source.strip() or "(nothing to write from)"
    best = in_order(ranked(source)[:2], source)
    rest = [fact for fact in facts if fact not in best]
    figures = [fact for fact in rest if numbers(fact)]
    plain = [fact for fact in rest if fact not in figures]
    parts = [f"# {title(source).removeprefix('Notes: ')}", "## In brief", " ".join(best)]
    if plain:
        parts += ["## What was found"]
        parts += [" ".join(plain[index : index + 3]) for index in range(0, len(plain), 3)]
    if figures:
        parts += ["## Figures", "\n".join(f"- {fact}" for fact in figures)]
    return "\n\n".join(parts)


def edited(text: str) -> str:
    """Shorter and without repetition; headings and figures stay as they are."""
    seen: set[str] = set()
    lines: list[str] = []
    for line in text.strip().splitlines():
        if not line.strip() or line.lstrip().startswith(("#", "|", "```")):
            lines.append(line.rstrip())
            continue
        mark = re.match(r"\s*(?:[-*+]\s+|\d+[.)]\s+)?", line)
        head = mark[0] if mark else ""
        kept = []
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z0-9\"'(])", line[len(head) :]):
            key = " ".join(words(sentence))
            if key and key in seen:
                continue
            seen.add(key)
            kept.append(_tight(sentence))
        if kept:
            lines.append(head + " ".join(kept))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _tight(sentence: str) -> str:
    for pattern, shorter in _FILLERS:
        sentence = re.sub(pattern, shorter, sentence, flags=re.IGNORECASE)
    if len(sentence.split()) > LONG_SENTENCE and "; " in sentence:
        first, _, rest = sentence.partition("; ")
        sentence = f"{first}. {rest[:1].upper()}{rest[1:]}"
    return sentence[:1].upper() + sentence[1:]


def verdict(text: str, sources: str) -> str:
    """Approve or reject: every figure and every name of the text must stand in the sources."""
    if not sources.strip():
        return "Verdict: reject\n\nThere is no source to check the text against."
    known = {word.lower() for word in re.findall(r"[A-Za-z][A-Za-z'-]*", sources)}
    unsupported = sorted(numbers(text) - numbers(sources))
    unsupported += sorted(
        name for name in names(text) if name.lower() not in known and f"{name.lower()}s" not in known
    )
    missing = [] if sentences(text) else ["the text holds no full sentence"]
    if unsupported or missing:
        claims = "\n".join(f"- not in the sources: {item}" for item in unsupported)
        gaps = "\n".join(f"- {item}" for item in missing)
        return f"Verdict: reject\n\n{claims}{gaps}\n\n---\n\n{text.strip()}"
    checked = f"{len(numbers(text))} figures and {len(names(text))} names were found in the sources."
    return f"Verdict: approve\n\n{checked}\n\n---\n\n{text.strip()}"


def extract(source: str, question: str) -> str:
    """The sentences nearest to the question, in order."""
    wanted = set(words(question))
    found = ranked(source)
    best = sorted(found, key=lambda sentence: -len(wanted & set(words(sentence))))[:5]
    return " ".join(in_order(best, source)) or source.strip()[:1000]
