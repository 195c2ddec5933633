"""What runs the stages of the network: one interface, several runtimes."""
