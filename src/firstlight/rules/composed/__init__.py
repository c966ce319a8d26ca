"""Operations written as formulas of others, and functions with a backward pass of their own."""
