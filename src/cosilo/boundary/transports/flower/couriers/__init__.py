"""What runs in Flower's processes: couriers between it and ours, which know nothing but bytes.

    Cosilo's process ◀── a socket of this machine ──▶ courier in Flower's ◀── Flower ──▶ the other

They import Flower and the standard library and nothing of Cosilo's: the environment that Flower is
installed in need not be Cosilo's. The same files are the app that a run of Flower's is started with.
"""
