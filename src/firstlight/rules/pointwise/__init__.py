"""Operations entry by entry: functions, sums, products, choices and random masks."""
