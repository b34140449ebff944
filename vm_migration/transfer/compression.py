"""Which codec the next frame of a stream takes, decided from what the frames before it took.

::

    no codec     plain                                   only sending so tells; a codec's frames say nothing of it
    a codec      max(busy, codec / ahead, ratio x plain) from a sample; then times what it took longer than that

All are seconds a byte of pages, `ahead` how many frames may be with the codec while the next one is made; where none
may, the first two add up. `busy` is what the source does beside compressing and waiting for the wire, and `plain` is
the link's time, or the destination's, or the source's own: whichever is slowest. So where the source itself is what
bounds sending, no codec is expected to gain anything, and none is tried.

What was expected need not come true: the destination decompresses too, and may have no processor left for it. So a
codec is on trial until a few MiB have shown that it is faster. It goes on while all that it sent since was faster
together: a moment in which the host had something else to do says nothing, two one after the other do. Trials and
samples may cost LOSABLE of the time that sending has taken, and a trial is broken off; so the whole is never much
slower than `none`. While a codec is in use, a few MiB go without one now and then, to see whether the link has changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Final

from vm_migration.transfer.frames import Codec
from vm_migration.transfer.page_rate import GAIN

LOSABLE: Final = 0.02
"""The share of the time so far that trials and samples may have cost when another trial begins."""
_SAMPLES: Final = 0.01
"""The share of the time that samples may take."""
_SPELL: Final = 8 << 20
"""Bytes of pages from which on what was measured counts."""
_RECENT: Final = 0.25
"""The weight of the last spell in what is known of all."""
_SLOW_SPELLS: Final = 2
"""Spells one after the other after which a codec that was faster is no more."""
_SETTLE: Final = 6 << 20
"""Bytes of pages that fill the buffers of a link that was not waited for: they go too fast to measure."""
_PLAIN_AFTER: Final = 128 << 20
_PLAIN_AFTER_LONGEST: Final = 512 << 20
"""Bytes of pages sent with a codec after which some go without one; twice as many each time that it changes nothing."""
_LEAST: Final = 256 << 10
"""Bytes of pages of a frame that is large enough to measure with; less where no frame has as many."""
_DELTA_WORTH: Final = 2.5e-9
"""Seconds a byte: what both ends need to make a delta, remember its base and apply it, so that waiting hides it."""
_DELTA_STILL_WORTH: Final = _DELTA_WORTH / 2
"""Where deltas were worth it: to give them up forgets all bases, which one crowded moment must not do."""
_WAITED: Final = 0.3
"""The share of its time that a frame waits for a link whose buffers are full."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one call of a codec did; `seconds` is its time alone."""

    raw_bytes: int
    packed_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Sent:
    """One frame of pages that was sent.

    `seconds` is the whole time from the frame before it, without samples; of it, `waited` went into sending.
    """

    raw_bytes: int
    seconds: float
    waited: float
    sample: Sample | None = None
    """What its codec did, where it had one, whether or not it made the frame smaller."""


@dataclass(slots=True)
class _Known:
    """What is known of a codec; seconds a byte of pages."""

    seconds: float = inf
    ratio: float = 1.0
    error: float = 1.0
    """By how much what it took exceeds what was expected."""

    def learn(self, sample: Sample, weight: float) -> None:
        seconds, ratio = sample.seconds / sample.raw_bytes, min(1.0, sample.packed_bytes / sample.raw_bytes)
        weight = 1.0 if self.seconds == inf else weight
        self.seconds = seconds if weight == 1.0 else self.seconds + (seconds - self.seconds) * weight
        self.ratio += (ratio - self.ratio) * weight


@dataclass(slots=True)
class _Spell:
    """Frames sent one after the other in one way."""

    raw_bytes: int = 0
    seconds: float = 0.0
    waited: float = 0.0

    def add(self, frame: Sent) -> None:
        self.raw_bytes += frame.raw_bytes
        self.seconds += frame.seconds
        self.waited += frame.waited

    @property
    def pace(self) -> float:
        """Seconds a byte of pages."""
        return self.seconds / self.raw_bytes


class AutoCompression:
    """The choice of one stream, from its first frame to its last; it knows no clock: what took how long is told."""

    def __init__(self, ahead: int = 0) -> None:
        """Begin; `ahead` frames may be with a codec while others are made and sent."""
        self.codec: Codec | None = None
        """What the next frame takes."""
        self._ahead: Final = ahead
        self.elapsed = 0.0
        self.lost = 0.0
        """Seconds that samples have cost, and codecs that turned out slower than none."""
        self._plain = 0.0
        self._busy = 0.0
        self._known: Final = {codec: _Known() for codec in Codec}
        self._spell = _Spell()
        self._unjudged = _Spell()
        """What was sent with codecs since `plain` was measured last."""
        self._slow_spells = 0
        """Spells with codecs, one after the other, that were slower than none."""
        self._settling = _SETTLE
        self._plain_after = _PLAIN_AFTER
        self._sampled_at = -inf
        self._sample_seconds = 0.0
        self._least = _LEAST
        self._waits = False
        self._resumed = False
        """Since a pause no frame has waited for the link, of which something is known."""

    def limit(self, frame_bytes: int) -> None:
        """Measure with frames of so many bytes of pages, where the largest have no more."""
        self._least = min(_LEAST, frame_bytes)

    def resume(self) -> None:
        """Go on after a pause, in which the link's buffers ran empty: what fills them is no measure of the link."""
        if self.codec is None and self._plain:
            self._settling, self._resumed = _SETTLE, True

    @property
    def wants_sample(self) -> bool:
        """Whether a part of the next frame should be given to each codec, to see what it makes of it."""
        if not self._plain and self._settling > 0:
            return False
        if self._plain and self._busy > GAIN * self._plain:
            return False
        return self.elapsed - self._sampled_at >= self._sample_seconds / _SAMPLES

    @property
    def waits(self) -> bool:
        """Whether a frame waits for the wire for longer than it takes to make and to apply it as a delta."""
        return self._waits

    def settled(self) -> Codec | None:
        """Return the best by what is known: for frames that must not be experimented with."""
        return self._best(trying=False) if self._plain else None

    def sampled(self, samples: Mapping[Codec, Sample], seconds: float) -> None:
        """Learn what each codec made of a part of a frame; all of it took so many seconds."""
        for codec, sample in samples.items():
            self._known[codec].learn(sample, 0.5)
        self.elapsed += seconds
        self.lost += seconds
        self._sampled_at, self._sample_seconds = self.elapsed, seconds

    def sent(self, frame: Sent) -> None:
        """Learn how long a frame took, and choose for the next one."""
        self.elapsed += frame.seconds
        if frame.raw_bytes < self._least:
            return
        if self._resumed and frame.waited >= _WAITED * frame.seconds:
            self._settling, self._resumed = 0, False
        if self._settling > 0:
            self._settling -= frame.raw_bytes
            return
        self._spell.add(frame)
        if self.codec is None:
            if self._spell.raw_bytes >= _SPELL:
                self._end_plain()
            return
        self._unjudged.add(frame)
        if frame.sample is not None:
            self._known[self.codec].learn(frame.sample, 0.2)
        if self._spell.raw_bytes >= _SPELL or self._loses():
            self._end_spell(self.codec)

    def _loses(self) -> bool:
        """Say whether a codec has already cost half of what a whole spell takes without it."""
        return self._spell.seconds > self._plain * (self._spell.raw_bytes + _SPELL / 2)

    def _end_plain(self) -> None:
        """Take what sending without a codec takes now, judge by it what was sent with one, and choose anew."""
        spell, self._spell = self._spell, _Spell()
        judged, self._unjudged = self._unjudged, _Spell()
        anew = judged.raw_bytes or not self._plain
        self._plain = spell.pace if anew else (self._plain + spell.pace) / 2
        busy = (spell.seconds - spell.waited) / spell.raw_bytes
        self._busy = self._busy + (busy - self._busy) * _RECENT if self._busy else busy
        self._waits = self._plain - self._busy >= (_DELTA_STILL_WORTH if self._waits else _DELTA_WORTH)
        if judged.raw_bytes:
            self.lost += max(0.0, judged.seconds - self._plain * judged.raw_bytes)
        self.codec = self._best(trying=self.lost <= LOSABLE * self.elapsed)
        if judged.raw_bytes:
            later = min(2 * self._plain_after, _PLAIN_AFTER_LONGEST)
            self._plain_after = _PLAIN_AFTER if self.codec is None else later

    def _end_spell(self, codec: Codec) -> None:
        """Compare what a codec took with what was expected, and stay with it, or see what goes without."""
        spell, self._spell = self._spell, _Spell()
        judged, known = self._unjudged, self._known[codec]
        weight = 1.0 if judged.raw_bytes == spell.raw_bytes else _RECENT
        known.error += (spell.pace / self._expected(codec) - known.error) * weight
        self._slow_spells = self._slow_spells + 1 if spell.pace > self._plain else 0
        gains = judged.pace <= GAIN * self._plain and self._slow_spells < _SLOW_SPELLS
        if gains and judged.raw_bytes < self._plain_after:
            self.codec = self._best(trying=False) or codec
            return
        self.codec, self._slow_spells = None, 0
        self._settling = _SETTLE if spell.waited < _WAITED * spell.seconds else 0

    def _expected(self, codec: Codec) -> float:
        known = self._known[codec]
        source = max(self._busy, known.seconds / self._ahead) if self._ahead else self._busy + known.seconds
        return max(source, known.ratio * self._plain)

    def _best(self, *, trying: bool) -> Codec | None:
        """Return the codec that promises most, if any promises enough; a trial forgets how it went the last time."""
        best: Codec | None = None
        bar = GAIN * self._plain
        for codec, known in self._known.items():
            promised = self._expected(codec) * (min(1.0, known.error) if trying else known.error)
            if promised < bar:
                best, bar = codec, promised
        return best
