"""What the command `doctor` examines: whether all that a service stands on does its work.

Each module examines one thing; `findings` runs the examinations, and is what they have in common.
Nothing is changed, save for the probe objects that stores get and lose again.
"""
