"""One conversation with the network: duplex units, streamed turns, chat."""
