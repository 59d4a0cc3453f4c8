"""What tests share that is no fake: paths, the command line, waiting, journeys, corpora."""
