"""PG k-means beside faiss, scikit-learn and the released iPQ's rule, in one run."""
