"""What `pretrain_backbone.py` trains the embedded backbone with; nothing here is shipped."""
