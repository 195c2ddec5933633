"""Speech tokens to a mel spectrogram, in a given voice: the flow-matching half of the vocoder."""
