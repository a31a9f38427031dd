"""What to do next: slots, rate, polling. Clock, sleep and randomness are arguments."""
