"""The network of MiniCPM-o 4.5 as torch modules, and the checkpoint that fills them."""
