"""A linear head on encrypted vectors: CKKS (Cheon et al., eprint 2016/421), by SEAL in TenSEAL.

    data owner                                     LM's owner
    keys.py       makes keys, encrypts ──vector──▶ head.py   weights · vector, made anew, rounded
                  decrypts        ◀──────logits──

Only `seal.py`, `keys.py` and `head.py` import TenSEAL, and only in processes that `process.py` starts.
"""
