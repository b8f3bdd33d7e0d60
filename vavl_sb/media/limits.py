"""What a media file may claim, so that a broken header costs no machine.

A few bytes of a damaged or hostile file can ask for gigabytes: a picture of
65535 x 65535 pixels, sound at 1 Hz that is 16,000 times as long at 16 kHz, a
time stamp in a million years. Genuine clips are far from these limits.

Authors
 * The vavl_sb authors 2026
"""

# 8K (7680 x 4320) fits; one such picture is 100 MB as RGB.
MAX_PIXELS = 2**25

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
