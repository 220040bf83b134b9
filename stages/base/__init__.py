"""What every stage needs besides its job: errors, paths, files, git, progress; it imports no other part of stages."""
