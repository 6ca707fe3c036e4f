"""What proposes: attacks, linear programs, trees. Nothing here is believed: `proof` re-evaluates what it finds."""
