"""Hold the text of a running job, from the stream that is read here or from the tail that another process stores."""

from dataclasses import dataclass, field

from agent_jobs.jobs.job import Job
from agent_jobs.jobs.response import JSON, activity_of, mapping_of, string_of

PARTIAL_CHARS = 2_000  # of the text so far: the tail that `partial` shows
HELD_PARTIAL_CHARS = 200_000  # of the text of a run that is held open: no other copy exists
SEPARATOR = "\n\n"  # between messages, as in the text of a finished response
ANCHOR_CHARS = 200  # of a text's end by which it is found in a newer tail: shorter ones repeat


@dataclass(slots=True)
class _Message:
    """A message of the response that is being written."""

    phase: str
    words: list[str] = field(default_factory=list[str])


@dataclass(slots=True)
class LiveText:
    """The text of a job's current turn as far as it is known. Mutable: it grows until the job finishes.

    A text that does not begin with the text before it shows that the provider began again: another turn, or a turn
    that was sent again.
    """

    is_cut: bool = False  #: the beginning of the text is not known, and `tail` has its end
    tail: str = ""  #: the known part of a text without its beginning
    notes: list[tuple[int, JSON]] = field(default_factory=list[tuple[int, JSON]])  #: annotations, by their message
    _items: list[JSON] | None = None  #: of the response; None if this process did not see its first ones
    _place: tuple[int, str | None] | None = None  #: the turn and the response that write it
    _before: str = ""  #: what was known before the messages below
    _messages: dict[object, _Message] = field(default_factory=dict[object, _Message])
    _is_streaming: bool = False

    @property
    def text(self) -> str:
        """Return the answer so far, from its beginning; empty if that is not known."""
        if self.is_cut:
            return ""
        return SEPARATOR.join(filter(None, (self._before, *self._select_texts().values())))

    @property
    def activity(self) -> str:
        """Return the steps of the response so far; empty if this process did not see all of them."""
        return activity_of(self._items or [])

    def list_offsets(self) -> dict[object, int]:
        """Return where each message begins in the text, by its index in the output."""
        offsets: dict[object, int] = {}
        offset = 0
        if self._before:
            offset = len(self._before) + len(SEPARATOR)
        for index, text in self._select_texts().items():
            offsets[index] = offset
            offset += len(text) + len(SEPARATOR)
        return offsets

    def begin_stream(self, job: Job) -> None:
        """Record that this process reads the job's stream from the job's current position."""
        self._is_streaming = False
        self.observe(job)
        self._is_streaming = True
        if self._items is None and not (job.activity or job.turn.partial):
            self._items = []

    def end_stream(self) -> None:
        """Note that this process does not read the stream any more."""
        self._is_streaming = False

    def observe(self, job: Job) -> None:
        """Use the stored tail of the job's text, unless this process reads the stream itself."""
        if self._is_streaming:
            return
        place = (job.turn.number, job.turn.response_id)
        if place != self._place:
            self._restart(place)
        if job.turn.partial:
            self._add_tail(job.turn.partial)

    def add_item(self, index: object, item: JSON) -> None:
        """Note that the response has another item."""
        if self._items is not None:
            self._items.append(item)
        if item.get("type") == "message":
            self._messages.setdefault(index, _Message(string_of(item.get("phase"))))

    def add_words(self, index: object, words: str) -> None:
        """Add words to the message with this index in the output."""
        if self.is_cut:
            self.tail = (self.tail + words)[-PARTIAL_CHARS:]
            return
        message = self._messages.get(index)
        if message is None:
            if self._before and not self._messages:
                self._before += words  # the stream was attached to in the middle of this message
                return
            message = self._messages[index] = _Message("")
        message.words.append(words)

    def add_note(self, event: JSON) -> None:
        """Add the annotation of an event."""
        index = event.get("output_index")
        if type(index) is int and event.get("content_index") in (None, 0):
            self.notes.append((index, mapping_of(event.get("annotation"))))

    def _select_texts(self) -> dict[object, str]:
        """Return the messages that make up the answer: those that are marked as final, else all but commentary."""
        messages = self._messages.items()
        chosen = [(index, message) for index, message in messages if message.phase == "final_answer"]
        if not chosen:
            chosen = [(index, message) for index, message in messages if message.phase != "commentary"]
        return {index: text for index, message in chosen if (text := "".join(message.words))}

    def _restart(self, place: tuple[int, str | None]) -> None:
        self._place = place
        self.is_cut, self.tail, self._before = False, "", ""
        self._items = None
        self._messages.clear()
        self.notes.clear()

    def _add_tail(self, tail: str) -> None:
        """Continue the text with a stored tail; leave it unchanged if the tail does not show how it continues."""
        known = self.text
        if known.endswith(tail):
            return
        if len(tail) not in (PARTIAL_CHARS, HELD_PARTIAL_CHARS):
            if not _has_same_words(known, tail):
                self._keep_as_read(tail)
        elif known:
            self._keep_as_read(_continue_text(known, tail))
        else:
            self.is_cut, self.tail = True, tail

    def _keep_as_read(self, text: str) -> None:
        self._before = text
        self._messages.clear()


class UnreadText(LiveText):
    """In place of the text of a job that no caller in this process reads: it keeps nothing, which costs little."""

    __slots__ = ()

    def begin_stream(self, job: Job) -> None:
        """Keep nothing of the job."""

    def end_stream(self) -> None:
        """Keep nothing of the end."""

    def observe(self, job: Job) -> None:
        """Keep nothing of the stored text."""

    def add_item(self, index: object, item: JSON) -> None:
        """Keep nothing of an item."""

    def add_words(self, index: object, words: str) -> None:
        """Keep no words."""

    def add_note(self, event: JSON) -> None:
        """Keep no annotation."""


#: Stands for the text of every job that no caller in this process reads.
UNREAD = UnreadText()


def _has_same_words(known: str, stored: str) -> bool:
    """Return True if a stored text adds nothing: it has no blank lines between messages."""
    return "".join(known.split()).startswith("".join(stored.split()))


def _continue_text(text: str, tail: str) -> str:
    """Return a text with the additions of a newer tail; unchanged if they are not certain."""
    anchor = text[-ANCHOR_CHARS:]
    found = [end for end in _find_ends(anchor, tail) if text.endswith(tail[:end][-len(text) :])]
    if len(found) != 1:
        return text
    return text + tail[found[0] :]


def _find_ends(words: str, text: str) -> list[int]:
    """Return the positions in a text at which these words end."""
    ends: list[int] = []
    start = text.find(words)
    while start >= 0:
        ends.append(start + len(words))
        start = text.find(words, start + 1)
    return ends
