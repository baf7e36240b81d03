"""The processor: radicals on a network, couplers switched by light, circuits run on it."""
