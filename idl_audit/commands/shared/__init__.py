"""What several commands need: the model and the samples they are asked about, workers, journal, frame of the report."""
