"""The parts that networks are made of: linear layers, norms, activations, attention, and a hidden layer as a whole."""
