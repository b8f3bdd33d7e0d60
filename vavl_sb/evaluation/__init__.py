"""How well a trained model does where information is missing or partial."""
