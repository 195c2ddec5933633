"""The vocoder, HiFT: mel frames become samples at 24 kHz, at once or chunk by chunk.

`vocoder` is the network, one stage; `stream` runs it over a turn, with what it keeps between chunks
(`history`); `weights` reads the published hift.pt. Streams need no torch, networks do.
"""
