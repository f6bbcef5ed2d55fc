"""The ways to a spectrum, in order of cost: each takes the matrices that none before it has solved."""
