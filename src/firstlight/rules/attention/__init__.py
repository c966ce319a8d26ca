"""Averages over keys with the weights of a softmax: the softmax itself, what its logits may be, what comes back."""
