"""Reference numbers of GeneCompass: xCompass-AI/GeneCompass@8323757b, transformers 4.30.0, torch 2.13.0 on a CPU."""
