"""What users' files and servers take on the disks, what they may take, and what is left."""
