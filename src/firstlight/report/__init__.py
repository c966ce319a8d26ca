"""Reports on one network, for the terminal and as one self-contained HTML page."""
