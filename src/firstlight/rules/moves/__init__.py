"""Operations that move entries, take parts, put tensors side by side, look up or send to experts."""
