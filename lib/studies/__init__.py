"""The experiments behind the chapters: models and numbers in, tidy DataFrames out."""
