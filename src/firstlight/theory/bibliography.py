"""Where every formula comes from: key → BibTeX, once, in `references.bib` beside this file.

Docstrings cite the keys under "References", records in their `reference` field.
"""

from __future__ import annotations

import difflib
import functools
import re
from importlib import resources

from firstlight.errors import RegistryError

_TEX = {"{\\'e}": "é", "{\\'n}": "ń", '{\\"u}': "ü", '{\\"a}': "ä", "{\\c{c}}": "ç"}


@functools.cache
def _entries() -> dict[str, str]:
    text = resources.files("firstlight.theory").joinpath("references.bib").read_text(encoding="utf-8")
    entries: dict[str, str] = {}
    for block in re.split(r"^(?=@)", text, flags=re.MULTILINE)[1:]:
        key = block[block.index("{") + 1 : block.index(",")]
        if key in entries:
            raise RegistryError("references.bib", got=f"a second entry {key!r}", expected="one entry per key")
        entries[key] = block.strip() + "\n"
    return entries


def keys() -> tuple[str, ...]:
    """All keys, sorted."""
    return tuple(sorted(_entries()))


def bibtex(key: str) -> str:
    """The BibTeX entry of a key.

    Raises:
        RegistryError: Unknown key; near ones are suggested.
    """
    entries = _entries()
    if key not in entries:
        near = difflib.get_close_matches(key, list(entries), n=3)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise RegistryError("reference", got=repr(key), expected="a key of theory.bibliography", action=hint)
    return entries[key]


def citation(key: str) -> str:
    """One line for people.

    Raises:
        RegistryError: Unknown key.

    Example:
        >>> citation("saxe2013").split(",")[0]
        'Saxe et al. (2013)'
    """
    fields: dict[str, str] = dict(re.findall(r"^  (\w+) = \{(.*)\},$", bibtex(key), flags=re.MULTILINE))
    people = [name.split(",")[0].strip() for name in _plain(fields["author"]).split(" and ")]
    who = people[0]
    if len(people) == 2 and people[1] != "others":
        who = f"{people[0]} & {people[1]}"
    elif len(people) > 1:
        who = f"{people[0]} et al."
    place = f"arXiv:{fields['eprint']}" if "eprint" in fields else fields["howpublished"]
    return f"{who} ({fields['year']}), {_plain(fields['title'])}, {_plain(place)}"


def _plain(text: str) -> str:
    for tex, plain in _TEX.items():
        text = text.replace(tex, plain)
    return text.replace("{", "").replace("}", "")
