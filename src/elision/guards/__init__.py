"""What must not be said: the register, normal forms, the phrase mask and hold-back."""
