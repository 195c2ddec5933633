"""The network of MiniCPM-o 4.5 as torch modules, and the checkpoint that fills them."""

import os

# Threads that wait for each other sleep instead of spinning: other programs of a robot want the
# cores, too, and a spinning thread whose partner was put aside made the network 20 times slower.
# libgomp reads this when torch loads it; whoever has set it knows better.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
