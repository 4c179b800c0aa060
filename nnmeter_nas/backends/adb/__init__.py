"""Android phones over adb: what reaches them, what they say of themselves, and what runs there."""
