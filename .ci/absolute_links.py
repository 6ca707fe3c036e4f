"""Make a page's relative links absolute, for readers who see it elsewhere, as PyPI shows the README.

    python .ci/absolute_links.py README.md OWNER/NAME REF

In the repository links stay relative, so that each commit leads to its own pages; a release builds its description
of this. Pictures are led to where they are served as they are.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

LINK = re.compile(r"(?P<picture>!?)(?P<text>\[[^\]]*\])\((?P<target>[^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", flags=re.MULTILINE | re.DOTALL)


def absolute(text: str, repository: str, ref: str) -> str:
    """Return the text of a page at the root of a repository on GitHub, its relative links made absolute."""

    def led(link: re.Match[str]) -> str:
        target = link["target"]
        if re.match(r"[a-z]+:|#|//", target):
            return link[0]
        place = f"raw.githubusercontent.com/{repository}" if link["picture"] else f"github.com/{repository}/blob"
        return f"{link['picture']}{link['text']}(https://{place}/{ref}/{target})"

    done, end = [], 0
    for block in FENCE.finditer(text):
        done += [LINK.sub(led, text[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*done, LINK.sub(led, text[end:])])


def main() -> None:
    """Change the page."""
    page, repository, ref = sys.argv[1:]
    path = Path(page)
    path.write_text(absolute(path.read_text(encoding="utf-8"), repository, ref), encoding="utf-8")


if __name__ == "__main__":
    main()
