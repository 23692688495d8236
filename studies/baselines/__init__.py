"""At equal FLOPs, which way of choosing a design gives the best language model, and what does the choice cost?"""
