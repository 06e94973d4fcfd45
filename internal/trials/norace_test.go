//go:build !race

package trials

// part is the part of simulations that is run: all.
const part = 1.0
