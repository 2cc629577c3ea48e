"""Over Flower: its SuperLink and SuperNodes carry bytes between processes of ours that never meet."""
