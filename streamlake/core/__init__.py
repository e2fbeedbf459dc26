"""What every package may lean on: time, chance, disk, errors, limits, memory budget, supervised tasks."""
