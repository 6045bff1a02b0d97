"""What ``sweeps/doctor.py`` looks at: small functions that look at one thing each and say what they found."""
