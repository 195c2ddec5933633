"""The network and the conversation held against what the reference computed, entry by entry."""
