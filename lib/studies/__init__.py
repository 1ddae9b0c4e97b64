"""The experiments behind the chapters: models and numbers in, tidy DataFrames out."""

# A file asks one question, which is the first line of its docstring; the set-up cell of a notebook
# names the files that it asks. Several are asked by others rather than by notebooks: `texts` and
# `presets` (what an experiment starts from), `arms` (trainings side by side), `processes` and
# `workers` (timings in fresh processes, jobs in worker processes), `scores` and `seeds` (losses in
# pairs, and what so many seeds allow to be said), `preflight` and `needs` (what is refused before
# anything runs), `words` (numbers in sentences). `x_told` has the tables and sentences of study
# `x`; what is measured apart and kept in reports/long is made and read by `apart`, `long_arms`,
# `kept_arms` and `kept_texts`.
