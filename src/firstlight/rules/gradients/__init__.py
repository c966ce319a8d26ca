"""What a gradient knows beyond its statistics: the factors it met, and how far it goes along its own tensor."""
