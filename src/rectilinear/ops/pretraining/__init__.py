"""Parts of pretraining: the recipe, the text, the model, the loop."""
