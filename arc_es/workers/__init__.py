"""Several processes that are one service: who starts and watches them, what they share, what each of them runs."""
