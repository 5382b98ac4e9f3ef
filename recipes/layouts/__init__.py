"""How other code lays out the weights of the networks of our recipes; ``recipes.convert`` is the command."""
