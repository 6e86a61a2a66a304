"""What both services stand on."""
