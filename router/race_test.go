//go:build race

package router

// underRace: the race detector makes sync.Pool drop what it is given, now and then.
const underRace = true
