"""What a task or an optimizer is made of, as a hash: trials of different code or data are never mixed."""
