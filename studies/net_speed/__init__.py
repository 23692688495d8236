"""Speed of designed networks: are they as fast as their FLOPs say, beside transformers' own GPT-2 and OPT on the same machine?"""
