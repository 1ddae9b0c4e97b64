"""What the server of `paper.warm` imports first: so much comes to stay that Python's collector
would walk through it again and again, so it waits until a kernel has put all that aside."""

import gc

gc.disable()
