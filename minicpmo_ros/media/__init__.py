"""Sound and picture: devices, resampling, echo cancellation, voice activity, conversion. A leaf."""
