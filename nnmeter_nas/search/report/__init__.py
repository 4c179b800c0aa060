"""What a search found: trials and their front, the files of a run folder, the page, the plots."""
