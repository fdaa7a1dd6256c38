"""What a batch goes through: tensors in, tensors out."""
