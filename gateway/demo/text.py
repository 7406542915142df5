"""Knows the one text that every answer is made of, cut into tokens of o200k_base beforehand.

Each piece is exactly one token and any number of them, from the start, encodes to that same number, so an answer's
token count is exact without any work a request. When the text ends it begins again.
"""

from __future__ import annotations

import orjson

MARKED = (
    " The| tide| does| not| ask| who| owns| the| boats|.| It| lifts| them| by| the| height| of| the| water|,| each|"
    " in| its| turn|,| and| the| gate| keeps| the| count|.| When| the| sea| is| low|,| the| keeper| waits|;| when|"
    " it| is| high|,| he| opens| the| lock| and| lets| the| waiting| ships| pass|,| the| oldest| first|,| the|"
    " urgent| before| the| rest|.| He| writes| down| what| came| in|,| what| went| out|,| and| what| it| cost|.|"
    " Nothing| is| lost| between| the| harbour| and| the| book|.| At| night| the| lamps| burn| on| the| wall|,|"
    " and| a| slow| bell| marks| the| hours|.| A| storm| may| break| a| mast|,| a| rope| may| part|,| a| ship|"
    " may| turn| back| in| the| middle| of| the| channel|,| yet| the| line| in| the| book| is| closed| with| what|"
    " was| truly| carried|.| So| the| town| knows| every| morning| how| much| grain| there| is|,| who| brought|"
    " it|,| and| who| still| waits| outside|.| This| text| is| always| the| same|:| it| comes| from| the| fake|"
    " provider|,| which| thinks| of| nothing| and| charges| for| each| word| all| the| same|."
)
PIECES: tuple[str, ...] = tuple(MARKED.split("|"))
FIRST = PIECES[0].lstrip()
LENGTH = len(PIECES)
KEPT = 4096  # joined texts longer than this are made again each time


def escape(text: str) -> bytes:
    """`text` as the inside of a JSON string."""
    return orjson.dumps(text)[1:-1]


class Text:
    """The text, ready to be put into JSON."""

    def __init__(self) -> None:
        self._escaped = tuple(escape(piece) for piece in PIECES)
        self._joined: dict[int, bytes] = {}

    def escaped(self, index: int) -> bytes:
        """The token at `index`, as the inside of a JSON string."""
        return self._escaped[index % LENGTH] if index else FIRST.encode()

    def pieces(self, count: int) -> list[bytes]:
        """The first `count` tokens, each as the inside of a JSON string."""
        return [self.escaped(index) for index in range(count)]

    def joined(self, count: int) -> bytes:
        """The first `count` tokens as one text, as the inside of a JSON string."""
        found = self._joined.get(count)
        if found is None:
            found = b"".join(self.pieces(count))
            if count <= KEPT:
                self._joined[count] = found
        return found


def plain(count: int) -> str:
    """The first `count` tokens as one text."""
    if count <= 0:
        return ""
    return FIRST + "".join(PIECES[index % LENGTH] for index in range(1, count))
