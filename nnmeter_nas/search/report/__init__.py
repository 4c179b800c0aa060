"""Report the results of a search: trials and their front, files of a run folder, page, plots."""
