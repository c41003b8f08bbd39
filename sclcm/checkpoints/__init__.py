"""Files and state dicts: find, verify and read published checkpoints, and map their tensor names onto ours."""
