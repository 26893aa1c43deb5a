"""The parts of healing: which position each layer answers to, what trains, on which loss, within which budget."""
