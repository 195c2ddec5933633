"""Voices to speak in: sound files, and what the vocoder is given of each."""
