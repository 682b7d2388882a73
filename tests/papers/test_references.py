"""The bibliography: complete, sorted, without duplicates, and with working forms of links."""

import re
import unicodedata

from clkit.papers import PAPERS
from clkit.papers.references import bibliography, reference


def test_every_source_is_whole_and_has_a_link():
    sources = list(bibliography().values())
    assert len(sources) > 30 and len({s.title.lower() for s in sources}) == len(sources)
    for source in sources:
        assert all(source) and re.fullmatch(r"(1[89]|20)\d\d", source.year), source
        assert re.fullmatch(
            r"https://(arxiv\.org/abs/\d{4}\.\d{4,5}|doi\.org/10\.\S+|www\.\S+\.pdf)", source.link
        )
        first = unicodedata.normalize("NFKD", source.authors.split(",")[0].split(" and ")[0].lower())
        surname = re.sub(r"[^a-z]", "", first)
        assert re.match(r"[a-z]+", source.key)[0] in surname, source


def test_keys_are_in_order():
    assert list(bibliography()) == sorted(bibliography())


def test_a_source_reads_as_a_line():
    line = reference("ji2020arm").markdown()
    assert line.endswith("(https://arxiv.org/abs/2006.12323)*. arXiv, 2020.") and line.startswith("X. Ji, ")


def test_the_papers_of_the_book_are_in_it():
    for name in set(PAPERS) & {"spacenet", "arm", "dgm", "gfr", "mfgr"}:
        assert any(key.endswith(name) for key in bibliography())
