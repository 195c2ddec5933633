"""Sound of any rate at the rate of the units: a stretch of samples at once, so that neither the
cutting into chunks nor their arrival can be heard in the outcome.

A unit closes the moment its sound is there, but a resampling filter wants to see some milliseconds
beyond. Those are predicted: a model of the last samples (Burg, 1967: linear prediction without a
window, always stable) is run on past the end. For voices and tones the error this leaves in the
last millisecond is far below the sound; reflecting the samples instead clicks once a second.
"""

from __future__ import annotations

import math

import numpy as np

CONTEXT_MS = 20  # what the filter may need of the samples before those that are wanted
PREDICTED_MS = 10  # and after them
PREDICTOR_ORDER = 32
PREDICTOR_SAMPLES = 2048


def resample(
    samples: np.ndarray, first: int, rate_hz: int, to_hz: int, lo: int, hi: int
) -> np.ndarray:
    """Samples lo to hi at to_hz, int16 [hi - lo], of a stretch of sound at rate_hz.

    samples: int16 [n], the samples first, first + 1, ... on the grid of rate_hz; sample i of either
    grid lies at i / rate. lo and hi lie within the stretch.
    """
    import soxr

    common = math.gcd(rate_hz, to_hz)
    up, down = to_hz // common, rate_hz // common
    # Input that begins on a multiple of `down` gives output that begins on a multiple of `up`.
    context = rate_hz * CONTEXT_MS // 1000
    before = context + (first - context) % down
    sound = samples.astype(np.float64)
    extended = np.concatenate(
        [
            np.full(before, sound[0]),
            sound,
            predict(sound, rate_hz * PREDICTED_MS // 1000),
            np.zeros(context),
        ]
    )
    begin = (first - before) // down * up
    out = soxr.resample(extended.astype(np.float32), rate_hz, to_hz, quality="HQ")
    wanted = out[lo - begin : hi - begin]
    return np.clip(np.rint(wanted), -32768, 32767).astype(np.int16)


def predict(samples: np.ndarray, count: int) -> np.ndarray:
    """The next count samples, float64 [count], as linear prediction continues samples [n]."""
    known = samples[-PREDICTOR_SAMPLES:]
    weights = burg(known, min(PREDICTOR_ORDER, len(known) // 3))
    order = len(weights)
    line = np.concatenate([known[len(known) - order :], np.zeros(count)])
    for i in range(count):
        line[order + i] = weights @ line[i : order + i]
    return line[order:]


def burg(samples: np.ndarray, order: int) -> np.ndarray:
    """Weights [order] of the last samples, oldest first, in the prediction of the next one.

    Burg's recursion: each reflection coefficient k minimises the sum of the forward and backward
    prediction errors that are left, so |k| <= 1 and the prediction does not grow.
    """
    polynomial = np.ones(1)
    forward = backward = samples
    for _ in range(order):
        forward, backward = forward[1:], backward[:-1]
        energy = forward @ forward + backward @ backward
        if energy <= 0.0:
            break
        k = -2.0 * (forward @ backward) / energy
        longer = np.append(polynomial, 0.0)
        polynomial = longer + k * longer[::-1]
        forward, backward = forward + k * backward, backward + k * forward
    return -polynomial[:0:-1]
