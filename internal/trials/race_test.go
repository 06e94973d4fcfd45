//go:build race

package trials

// part is the part of simulations that is run: under the race detector they take ten times as long, and it looks for races, not rates.
const part = 0.1
