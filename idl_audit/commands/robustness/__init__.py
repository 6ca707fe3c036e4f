"""What attack and certify share, piece by piece: the question, its answers, and what is said of them."""
