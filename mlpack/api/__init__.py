"""One module per verb, thin: settle the inputs, ask the floors below, return a value."""
