"""The experiments that explain when and why adaptation works."""
