from pathlib import Path
PARTS_OF = {"memory": 1, "sqlite":1, "redis":1, "nats":1}
def profile(*a): raise NotImplementedError
