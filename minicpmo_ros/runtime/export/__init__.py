"""The stages of a network as files that other runtimes run. Needs torch and the extra 'export'."""
