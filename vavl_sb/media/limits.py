"""What a media file may claim, so that a broken header costs no machine.

A few bytes of a damaged or hostile file can ask for gigabytes: a picture of
65535 x 65535 pixels, sound at 1 Hz that is 16,000 times as long at 16 kHz, a
time stamp in a million years. Genuine clips are far from these limits.

Authors
 * The vavl_sb authors 2026
"""

import math

# 8K (7680 x 4320) fits.
MAX_PIXELS = 2**25

# Bytes of one decoded picture, of which a decoder keeps up to a few dozen:
# the largest one with 24 bits a pixel (10-bit 4:2:0, or RGB).
MAX_PICTURE_BYTES = 3 * MAX_PIXELS

# Pixels of a picture beyond which it is kept at a smaller size (2560 x 1440
# is kept as it is, 4K at half its size). No crop of a face needs more.
MAX_KEPT_PIXELS = 2**22

# Pixels to decode for a second of a clip: 8K at 30 frames a second fits, or
# 4K at 120. So many seconds' worth may come at once.
MAX_PIXELS_A_SECOND = 2**30
SAVED_SECONDS = 4

# Samples a second: below is no speech, above no recorder.
SAMPLE_RATES = (1000, 768_000)

# Seconds from the start to any time stamp.
MAX_TIME = 24 * 3600.0

# Seconds of sound that are held at once, where a clip is read whole: 230 MB.
MAX_WHOLE = 3600.0


def fault_of_picture(width, height):
    """What is wrong with the size of a picture.

    Arguments
    ---------
    width, height : int
        Pixels.

    Returns
    -------
    str or None
        Words for an error; None where it may be decoded.

    Example
    -------
    >>> fault_of_picture(7680, 4320)
    >>> fault_of_picture(65535, 65535)
    'a picture of 65535 x 65535 pixels is above the limit of 33554432'
    """
    if width * height <= MAX_PIXELS:
        return None
    return (
        f"a picture of {width} x {height} pixels is above the limit of "
        f"{MAX_PIXELS}"
    )


def fault_of_format(width, height, bits):
    """What is wrong with the bytes that a decoded picture takes.

    Arguments
    ---------
    width, height : int
        Pixels.
    bits : int
        Of a pixel, in memory.

    Returns
    -------
    str or None
        As :func:`fault_of_picture`.

    Example
    -------
    >>> fault_of_format(7680, 4320, bits=24)
    >>> fault_of_format(7680, 4320, bits=64)
    'a picture of 265 MB is above the limit of 101 MB'
    """
    size = width * height * bits // 8
    if size <= MAX_PICTURE_BYTES:
        return None
    return (
        f"a picture of {size / 1e6:.0f} MB is above the limit of "
        f"{MAX_PICTURE_BYTES / 1e6:.0f} MB"
    )


def kept_size(width, height):
    """Size at which a picture is kept, so that large ones fill no memory.

    Arguments
    ---------
    width, height : int
        Pixels.

    Returns
    -------
    width, height : int
        Both divided by the least whole number that ``MAX_KEPT_PIXELS`` allows.

    Example
    -------
    >>> kept_size(1920, 1080), kept_size(3840, 2160), kept_size(8192, 4096)
    ((1920, 1080), (1920, 1080), (2731, 1365))
    """
    kept, factor = (width, height), 1
    while kept[0] * kept[1] > MAX_KEPT_PIXELS:
        factor += 1
        kept = (
            max(1, round(width / factor)),
            max(1, round(height / factor)),
        )
    return kept


class DecodingCredit:
    """Pixels that may be decoded: each second of a clip brings some more.

    A few kilobytes can hold thousands of pictures with one time stamp.

    Example
    -------
    >>> credit = DecodingCredit()
    >>> faults = [credit.spend(7680 * 4320, n / 30) for n in range(1000)]
    >>> any(faults)
    False
    >>> faults = [credit.spend(7680 * 4320, 34.0) for n in range(1000)]
    >>> faults[-1]
    'more than 1074 million pixels a second to decode'
    """

    def __init__(self):
        self.credit = SAVED_SECONDS * MAX_PIXELS_A_SECOND
        self.latest = -math.inf

    def spend(self, pixels, time):
        """Pays for what is decoded.

        Arguments
        ---------
        pixels : int
            That were decoded.
        time : float or None
            How far the clip has come, seconds.

        Returns
        -------
        str or None
            As :func:`fault_of_picture`.
        """
        if time is not None and time > self.latest:
            seconds = min(time - self.latest, SAVED_SECONDS)
            self.latest = time
            self.credit = min(
                self.credit + seconds * MAX_PIXELS_A_SECOND,
                SAVED_SECONDS * MAX_PIXELS_A_SECOND,
            )
        self.credit -= pixels
        if self.credit >= 0:
            return None
        return (
            f"more than {MAX_PIXELS_A_SECOND / 1e6:.0f} million pixels a "
            "second to decode"
        )


def fault_of_rate(rate):
    """What is wrong with a sample rate.

    Arguments
    ---------
    rate : int
        Samples a second.

    Returns
    -------
    str or None
        As :func:`fault_of_picture`.

    Example
    -------
    >>> fault_of_rate(16000)
    >>> fault_of_rate(1)
    'sound of 1 samples a second is outside of 1000 to 768000'
    """
    low, high = SAMPLE_RATES
    if low <= rate <= high:
        return None
    return f"sound of {rate} samples a second is outside of {low} to {high}"


def fault_of_time(time):
    """What is wrong with a time stamp.

    Arguments
    ---------
    time : float
        Seconds from the start of the presentation.

    Returns
    -------
    str or None
        As :func:`fault_of_picture`.

    Example
    -------
    >>> fault_of_time(-0.02)
    >>> fault_of_time(1e12)
    'a time stamp of 1e+12 s is beyond the limit of 24 hours'
    """
    if abs(time) <= MAX_TIME:
        return None
    return (
        f"a time stamp of {time:g} s is beyond the limit of "
        f"{MAX_TIME / 3600:g} hours"
    )
